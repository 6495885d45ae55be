"""A call, live: sound goes in piece by piece, and pictures come out chunk by chunk."""
