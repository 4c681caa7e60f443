"""Planted scenes: generated images whose classes, cues and shortcuts are known."""
