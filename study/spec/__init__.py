"""The specification of a study: its sections, how it is read, and what is wrong with it."""
