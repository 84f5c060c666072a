"""Text generation token by token: greedy search, beam search and sampling."""
