"""The specification of a study: its sections, how it is read, and configurations from files."""
