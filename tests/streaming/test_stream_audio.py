"""Sound in pieces: what each chunk hears is what the whole recording says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_models import sound

from talkingmachines.audio.alignment import audio_windows, frames_in, latent_modes, window_frames
from talkingmachines.audio.features import activity, log_mel
from talkingmachines.streaming.audio import AudioStream, ChunkAudio


def heard(stream: AudioStream, samples: np.ndarray, sizes: list[int]) -> list[ChunkAudio]:
    """All complete chunks of sound that comes in pieces of these sizes, over and over."""
    chunks, turn = [], 0
    while len(samples):
        piece, samples = np.split(samples, [min(sizes[turn % len(sizes)], len(samples))])
        turn += 1
        while len(piece) or stream.ready:
            piece = stream.push(piece)
            if stream.ready:
                chunks.append(stream.take())
    return chunks


@pytest.mark.parametrize(("frames", "window"), [(3, 9), (2, 5), (1, 9), (1, 1), (4, 3)])
def test_chunks_hear_what_the_whole_says(frames: int, window: int) -> None:
    count = 5
    samples = sound(640 * frames_in(frames * count))
    chunks = heard(AudioStream(frames, window), samples, [len(samples)])
    ends = list(range(frames - 1, frames * count, frames))
    whole = audio_windows(log_mel(torch.from_numpy(samples)[None]), window, ends)
    assert len(chunks) == count
    assert [chunk.windows.first.shape[1] for chunk in chunks] == [1] + [0] * (count - 1)
    torch.testing.assert_close(chunks[0].windows.first, whole.first, atol=1e-5, rtol=0)
    rest = torch.cat([chunk.windows.rest for chunk in chunks], 1)
    torch.testing.assert_close(rest, whole.rest, atol=1e-5, rtol=0)
    modes = torch.cat([chunk.modes for chunk in chunks], 1)
    assert torch.equal(modes[0], latent_modes(activity(samples))) and 0 < modes.float().mean() < 1


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=6).filter(any))
def test_pieces_do_not_matter_to_the_bit(sizes: list[int]) -> None:
    samples = sound(640 * frames_in(8))
    whole = heard(AudioStream(2, 5), samples, [len(samples)])
    pieces = heard(AudioStream(2, 5), samples, sizes)
    for one, other in zip(whole, pieces, strict=True):
        assert torch.equal(one.windows.rest, other.windows.rest) and torch.equal(one.windows.first, other.windows.first)
        assert torch.equal(one.modes, other.modes)


@pytest.mark.parametrize("known", [0, 1, 4, 100])
def test_what_is_coming_is_heard_ahead(known: int) -> None:
    frames, window, count = 3, 9, 4
    samples = sound(640 * frames_in(frames * count))
    stream, left, chunks = AudioStream(frames, window), samples, []
    assert stream.ahead == 4 * 640
    while len(left):
        left = stream.push(left)
        chunks.append(stream.take(left[: 640 * known + 7]))
    features = log_mel(torch.from_numpy(samples)[None])[0]
    rest = torch.cat([chunk.windows.rest for chunk in chunks], 1)[0]
    for latent, places in enumerate(window_frames(len(features), window)[1], start=1):
        heard = frames_in((latent // frames + 1) * frames) - 1 + min(known, 4)
        torch.testing.assert_close(
            rest[latent - 1], features[[min(place, heard) for place in places]], atol=1e-5, rtol=0
        )


def test_what_is_coming_is_not_taken() -> None:
    told, untold = AudioStream(2, 5), AudioStream(2, 5)
    for stream, coming in ((told, 3 * sound(9000, 3)), (untold, None)):
        stream.push(sound(5 * 640))
        stream.take(coming)
        assert (stream.wanted, stream.pending) == (8 * 640, 0)
        stream.push(sound(8 * 640, 1))
    assert torch.equal(told.take().windows.rest, untold.take().windows.rest)


def test_counts_what_is_missing() -> None:
    stream = AudioStream(3, 9)
    assert (stream.wanted, stream.pending, stream.ready) == (9 * 640, 0, False)
    assert len(stream.push(np.zeros(100, np.float32))) == 0
    assert (stream.wanted, stream.pending) == (9 * 640 - 100, 100)
    assert len(stream.push(np.zeros(9 * 640, np.float32))) == 100 and stream.ready
    stream.take()
    assert (stream.wanted, stream.pending) == (12 * 640, 0)
    with pytest.raises(AssertionError, match="7680 samples"):
        stream.take()


def test_padding_is_silence_whatever_was_there_before() -> None:
    padded, spelt_out = AudioStream(2, 5), AudioStream(2, 5)
    loud = np.full(8 * 640, 0.5, np.float32)
    for stream in (padded, spelt_out):
        heard(stream, loud[: 5 * 640], [999])
        stream.push(loud)
        stream.take()
        stream.push(loud[:1000])
    padded.pad()
    spelt_out.push(np.zeros(8 * 640, np.float32))
    assert torch.equal(padded.take().windows.rest, spelt_out.take().windows.rest)


def test_values_are_cut_to_full_scale() -> None:
    over, at = (AudioStream(2, 5) for _ in range(2))
    samples = 3 * sound(5 * 640, 2)
    over.push(samples)
    at.push(samples.clip(-1, 1))
    assert np.abs(samples).max() > 1 and torch.equal(over.take().windows.rest, at.take().windows.rest)


def test_silence_after_a_drop_is_heard_without_a_click() -> None:
    stream, silence = AudioStream(2, 5), np.zeros(8 * 640, np.float32)
    stream.push(np.full(5 * 640, 0.7, np.float32))
    stream.take()
    stream.push(np.full(900, 0.7, np.float32))
    stream.drop()
    assert stream.pending == 0
    stream.push(silence)
    own = stream.take().windows.rest[:, 1, 2:]  # the second latent frame; its first two frames are of the first one
    assert torch.equal(own, own[:, :1].expand_as(own)) and own.max() < -2
    clicks = AudioStream(2, 5)
    clicks.push(np.full(5 * 640, 0.7, np.float32))
    clicks.take()
    clicks.push(silence)
    begins = clicks.take().windows.rest[:, 0, 2]
    assert begins.max() > 0, "without a drop the jump to silence is a click"
