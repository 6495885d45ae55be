"""Weights that others have published, made into weights of ours."""
