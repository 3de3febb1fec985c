"""Judges: models that answer questions about pictures, one file a family."""
