"""Real data and the stories told with it."""
