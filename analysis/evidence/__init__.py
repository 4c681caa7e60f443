"""From records and predictions to findings: an arm's evidence, its scores, the rows of the comparison, warnings."""
