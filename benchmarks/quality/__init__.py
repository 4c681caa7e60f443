"""What studies and common recipes hand over after the same time."""
