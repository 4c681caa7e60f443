"""One trial: image sources, audit, splits, augmentation, models, the training loop and its record."""
