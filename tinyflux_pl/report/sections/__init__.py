"""The sections of a page, each from the files of a run or of a sweep."""
