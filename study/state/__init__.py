"""The state of a study on disk: paths, checksums, record book, lease, fenced store, budget extensions."""
