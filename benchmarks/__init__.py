"""Measurements of what the package costs."""
