"""What may vary: trial configurations, search spaces, arms and factors."""
