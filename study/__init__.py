"""The life of a study: spec, search, confirmation, comparison, report, reproduction, command line."""
