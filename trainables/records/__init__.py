"""A trial's record, files and TensorBoard events, and the store that holds them."""
