"""Metrics of predictions, as the official scorers of the tasks define them."""
