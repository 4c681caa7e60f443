"""The page of `study inspect`."""
