"""Reading the weight files of published releases."""
