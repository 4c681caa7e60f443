"""Models trained elsewhere: their predictions and their forensics."""
