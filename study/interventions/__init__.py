"""Interventions in the winner of a study: what its findings ask for, and the study that tries it."""
