"""Aligning a text encoder away from a concept: settings, losses, and the training itself."""
