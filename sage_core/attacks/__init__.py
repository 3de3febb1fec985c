"""Attacks on text encoders, to test one's own: prompts that bring a removed concept back."""
