"""One trial's training: loop, optimization, evaluation, predictions, checkpoints."""
