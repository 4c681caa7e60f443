"""What a model looks at, by intervention: ring audit, frequency audit, cues, root causes."""
