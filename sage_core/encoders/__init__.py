"""CLIP text encoders of Stable Diffusion 1.x: every file layout, token ids, embeddings, LoRAs.

The lowest wing: all others build on it.
"""
