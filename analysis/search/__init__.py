"""Analysis of the search: arms, rungs, tuning curves, profile of an epoch's time."""
