"""The diffusion transformer: Wan2.1 image-to-video with audio cross-attention in every layer."""
