"""Errors by class: confusion matrix, class scores, clusters, pair rates, group contrasts, label issues."""
