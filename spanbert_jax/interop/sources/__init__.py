"""Sources of weights: names and paths, and one file for each file format."""
