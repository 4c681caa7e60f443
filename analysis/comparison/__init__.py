"""The A/B comparison: rows, verdicts, divergence, metrics beside macro-F1."""
