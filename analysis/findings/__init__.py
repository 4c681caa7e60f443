"""The values of the report: frozen dataclasses, intervals among them. They compute nothing."""
