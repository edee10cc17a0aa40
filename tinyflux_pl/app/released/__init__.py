"""Published families: the settings of their files, and small ones on random weights."""
