"""Metrics, influence functions, crossed intervals, the comparison, bootstrap, anytime-valid intervals."""
