"""The values behind the report: frozen dataclasses that compute nothing."""
