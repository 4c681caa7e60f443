"""What the search shows: rungs, tuning curves, where an epoch's time goes."""
