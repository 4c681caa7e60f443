"""From records and predictions to findings and their report."""
