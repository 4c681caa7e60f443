"""Which trial starts next and which one stops: directors, sampler, pruner, budget ledger, warm start."""
