"""The inputs of a study: data, human labels, provenance, and changes of the environment."""
