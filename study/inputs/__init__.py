"""What a study starts from: prepared data, human labels, provenance, environment changes."""
