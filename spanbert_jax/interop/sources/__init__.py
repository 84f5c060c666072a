"""Where tensors come from: names and paths, and files of every kind. One file a kind."""
