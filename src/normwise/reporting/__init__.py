"""Reports for people and machines, from plain data: nothing here knows of models."""
