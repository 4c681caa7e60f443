"""Confirmation of the search's winners with new seeds: plan, trials by seed, test split, count of test reads."""
