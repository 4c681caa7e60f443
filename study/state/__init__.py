"""The state of a study on disk: paths, checksums, record book, interruption, lease, fenced store, budget extensions."""
