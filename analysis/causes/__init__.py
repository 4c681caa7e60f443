"""Root causes of confused pairs of classes."""
