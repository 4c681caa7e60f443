"""The ratios P1 to P11, both sides in one run."""
