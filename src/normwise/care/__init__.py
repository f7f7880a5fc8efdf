"""Caring for the statistics of a model that is already trained."""
