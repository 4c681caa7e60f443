"""Augmentation of batches on their device, and its presets."""
