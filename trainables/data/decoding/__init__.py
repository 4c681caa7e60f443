"""Decoding of image files on all cores, once per content and node."""
