"""The denoising side of Stable Diffusion 1.x."""
