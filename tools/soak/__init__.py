"""A soak."""
