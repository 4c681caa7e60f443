"""Simple models that a study must beat."""
