"""Pages and sections that show images of the test split."""
