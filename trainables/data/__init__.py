"""Images: sources, decoding, splits, the dimensional audit, augmentation on the device."""
