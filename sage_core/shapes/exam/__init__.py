"""Who examines pictures of the shapes world: the reader of pixels, the learned judge, and attacked prompts."""
