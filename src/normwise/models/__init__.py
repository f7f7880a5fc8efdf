"""A user's model: walking it, running it, watching it, changing it and putting it back."""
