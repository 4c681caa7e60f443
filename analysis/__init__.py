"""From predictions to findings: metrics, intervals, comparison, confusion, Grad-CAM, figures, report."""
