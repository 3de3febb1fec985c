"""Who examines pictures of the shapes world, and how well: the reader of pixels, the learned judge, attacked prompts."""
