"""Pictures cut so that the face is where a model has learned to have it."""
