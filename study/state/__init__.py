"""A study on disk: paths, checksums, record book, lease, budget extensions."""
