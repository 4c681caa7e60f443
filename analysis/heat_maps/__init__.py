"""Grad-CAM, the tests that a heat map must pass to count as evidence, and panels."""
