"""The shapes world: a complete Stable Diffusion 1.x small enough to know exactly.

Scenes of shapes, captions that name everything in them, a renderer, exact questions, a reader of pictures, and the tiny
models that are trained on them.
"""
