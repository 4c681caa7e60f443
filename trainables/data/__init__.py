"""Images: sources, decoding, splits, audit and augmentation."""
