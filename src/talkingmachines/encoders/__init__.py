"""What the large models are told of: a prompt, a picture, speech. Through transformers, which is optional."""
