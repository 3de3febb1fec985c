"""The networks of the shapes world, and the files that hold their weights."""
