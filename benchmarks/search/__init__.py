"""The search, replayed on recorded curves."""
