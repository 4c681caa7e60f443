"""From a confirmed study to its comparison, findings, audits, heat maps and report."""
