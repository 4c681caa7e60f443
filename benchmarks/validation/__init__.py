"""Simulations behind the statistics, and planted worlds behind the forensics."""
