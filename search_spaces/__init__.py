"""Trial configurations, search spaces, arms and designs."""
