"""Writing texts piece by piece: greedy, by beam search and by sampling."""
