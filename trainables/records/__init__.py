"""A trial's record, files and TensorBoard events."""
