"""Interventions: what the findings ask for, what it should change, and what it changed."""
