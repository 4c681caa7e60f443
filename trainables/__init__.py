"""One trial: image sources, audit, splits, augmentation, models, training and records."""
