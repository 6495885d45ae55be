"""Attention without state: the product itself, and rotary positions over time and space."""
