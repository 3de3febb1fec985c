"""Compare alignment objectives in the shapes world: `python -m sage_core.shapes.bench`."""
