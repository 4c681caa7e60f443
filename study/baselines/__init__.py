"""Baselines: simple models that a study measures before its search."""
