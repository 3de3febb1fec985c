"""Judges: models that answer questions about pictures, one file for each family; `base.load_judge` loads any."""
