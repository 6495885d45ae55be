"""The sparse causal rule: who sees whom, and at which position.

Frames come in chunks of a few latent frames. A chunk sees chunk 0 (the anchor, which holds the picture), the chunk
just before it, and itself, in both directions of time. Rotary positions are those of a window of `window` chunks,
chunk 0 and the latest ones, counted without a gap, so they stay bounded however long a call lasts (TalkingMachines,
arXiv 2506.03099, training figure).
"""

import torch
from torch import Tensor


def seen_chunks(chunk: int) -> tuple[int, ...]:
    """The chunks that a chunk sees, ascending; the last is itself."""
    return tuple(sorted({0, max(chunk - 1, 0), chunk}))


def seen_positions(chunk: int, window: int) -> tuple[int, ...]:
    """Where, in chunks, those of seen_chunks(chunk) sit; window >= 3.

    The anchor is at 0, the chunk itself at its number until the window is full and at window - 1 ever after, and
    the one before it one place earlier.
    """
    assert window >= 3, f"a window of {window} chunks has no place for anchor, previous chunk and the chunk itself"
    own = min(chunk, window - 1)
    return tuple(seen and own - (chunk - seen) for seen in seen_chunks(chunk))


def frame_positions(chunks: tuple[int, ...], frames: int) -> list[int]:
    """Positions of latent frames, of chunks at these positions with `frames` frames each."""
    return [chunk * frames + frame for chunk in chunks for frame in range(frames)]


def sparse_causal_mask(chunks: int, tokens: int, device: torch.device | str | None = None) -> Tensor:
    """bool [L, L], L = chunks * tokens, True where the query (row) sees the key (column)."""
    mask = torch.zeros(chunks, chunks, dtype=torch.bool, device=device)
    for chunk in range(chunks):
        mask[chunk, list(seen_chunks(chunk))] = True
    return mask.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)
