"""Ratios with both sides in one run: medians of five, interleaved."""
