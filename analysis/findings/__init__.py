"""The values behind the report: frozen dataclasses. What they derive, they derive from their own fields."""
