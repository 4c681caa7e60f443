"""Formats of numbers and tables, which all topics share."""
