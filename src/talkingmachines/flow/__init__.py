"""Flow matching: the path from latents to noise, its schedule, and the way back."""
