"""Models trained elsewhere: predictions, comparison and forensics."""
