"""Judges: models that answer questions about pictures, one file a family; `base.load_judge` is the door."""
