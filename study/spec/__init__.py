"""What a person asks for: the spec, its sections, files of configurations."""
