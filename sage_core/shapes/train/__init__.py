"""Train everything in the shapes world from nothing: `python -m sage_core.shapes.train`."""
