"""Results of a study: comparison, audits, heat maps, findings, figures, report, and Optuna's view of the search."""
