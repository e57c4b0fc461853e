"""Archives of data sets: downloading and safe extraction."""
