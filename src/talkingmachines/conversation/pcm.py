"""Samples as others carry them, int16 bytes, and as the avatar hears them, float32 in [-1, 1]."""

import numpy as np


def to_bytes(samples: np.ndarray) -> bytes:
    """float32 in [-1, 1] to int16."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def from_bytes(pcm: bytes | memoryview) -> np.ndarray:
    """int16 to float32 in [-1, 1]; `to_bytes` gives the same bytes back."""
    return np.clip(np.frombuffer(pcm, "<i2").astype(np.float32) / 32767, -1, 1)


def mono(pcm: np.ndarray, channels: int) -> np.ndarray:
    """int16 [n * channels], interleaved, to int16 [n]."""
    return pcm.reshape(-1, channels).mean(axis=1).astype("<i2") if channels > 1 else pcm
