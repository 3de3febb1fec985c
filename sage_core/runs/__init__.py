"""Runs of any training: what a step reports, its curves, and the one loop that resumes exactly."""
