"""Figures of predictions against answers, as the official scorers of the tasks define them."""
