"""Audits that change images and measure what a model loses: rings, frequencies, cues, root causes."""
