"""What a trial leaves behind: its record, its files, its TensorBoard events, and the store they lie in."""
