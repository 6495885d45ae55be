"""Conversations: the avatar as a Pipecat video service, the voices that speak through it, and a call of the two."""
