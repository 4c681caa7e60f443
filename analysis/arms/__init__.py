"""One arm: its evidence, scores and findings."""
