"""Baselines: simple models that a study measures before its search, and the model that it hands over in the end."""
