"""What a strategy may look at."""
