"""The documentation: pages, and what generates its references."""
