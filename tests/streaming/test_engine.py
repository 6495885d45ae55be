"""Chunk by chunk against all at once, alone against in a batch, and what is computed how often."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from stream_models import picture, random_engine, samples_of, sound, whole_call
from torch import Tensor, nn

from talkingmachines.dit import causal, model
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.media.image import fit_image
from talkingmachines.streaming import engine as engine_module
from talkingmachines.streaming.engine import Call, Engine
from talkingmachines.vae.detail import Detail
from talkingmachines.vae.pixels import to_frames, to_tensor


def made(engine: Engine, call: Call, samples: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Latents and frames of all chunks that are complete with `samples`."""
    latents, frames = [], []
    while True:
        samples = call.audio.push(samples)
        if not call.audio.ready:
            return torch.cat(latents, 2), np.concatenate(frames)
        latents.append(engine.denoise([call]))
        frames.append(engine.decode(call, latents[-1]))


@pytest.mark.parametrize(
    "chunk",
    [None, ChunkConfig(frames=3, window=4), ChunkConfig(frames=1, window=3, steps=3)],
    ids=["tiny", "threes", "ones"],
)
@torch.no_grad()
def test_chunks_equal_the_whole(chunk: ChunkConfig | None) -> None:
    """Seven chunks: before and after the window slides."""
    engine = random_engine(chunk)
    samples = sound(samples_of(engine, 7))
    latents, frames = made(engine, engine.open(picture(), 3), samples)
    whole, video = whole_call(engine, picture(), samples, 3)
    torch.testing.assert_close(latents, whole, atol=1e-4, rtol=0)
    assert frames.shape == video.shape and frames.std() > 5
    assert np.abs(frames.astype(int) - video).max() <= 1


def test_sound_picture_seed_and_box_matter(engine: Engine) -> None:
    samples = sound(samples_of(engine, 3))
    first = made(engine, engine.open(picture(), 0), samples)[0]
    assert torch.equal(first, made(engine, engine.open(picture(), 0), samples)[0])
    for call, heard in (
        (engine.open(picture(1), 0), samples),
        (engine.open(picture(), 1), samples),
        (engine.open(picture(), 0, (0, 0, 0.3, 0.3)), samples),
        (engine.open(picture(), 0), sound(len(samples), 1)),
    ):
        assert (made(engine, call, heard)[0] - first).abs().max() > 1e-3


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_later_sound_never_changes_an_earlier_frame(engine: Engine, chunk: int) -> None:
    samples = sound(samples_of(engine, 6))
    changed, border = samples.copy(), samples_of(engine, chunk)
    changed[border:] = sound(len(samples), 9)[border:]
    before, after = (made(engine, engine.open(picture(), 0), one)[1] for one in (samples, changed))
    assert np.array_equal(before[: border // 640], after[: border // 640])
    assert not np.array_equal(before[border // 640 :], after[border // 640 :])


def test_calls_in_one_batch_equal_calls_alone(engine: Engine) -> None:
    """Two at their first chunk, and others at three more, in an order that mixes them."""
    ages = (3, 0, 1, 0, 5)
    length = samples_of(engine, 8)
    alone = [made(engine, engine.open(picture(i), i), sound(length, i))[0] for i in range(len(ages))]
    calls = [engine.open(picture(index), index) for index in range(len(ages))]
    rest = []
    for index, (call, age) in enumerate(zip(calls, ages, strict=True)):
        samples, later = np.split(sound(length, index), [samples_of(engine, age) if age else 0])
        if age:
            made(engine, call, samples)
        rest.append(later)
    for chunk in range(2):
        rest = [call.audio.push(later) for call, later in zip(calls, rest, strict=True)]
        together = engine.denoise(calls)
        for index, age in enumerate(ages):
            at = engine.chunk.frames * (age + chunk)
            expected = alone[index][0, :, at : at + engine.chunk.frames]
            torch.testing.assert_close(together[index], expected, atol=1e-4, rtol=0)


def test_a_batch_decodes_to_the_frames_of_each_alone(engine: Engine) -> None:
    calls, single = ([engine.open(picture(i), i) for i in range(2)] for _ in range(2))
    rest = [sound(samples_of(engine, 3), index) for index in range(2)]
    expected = [made(engine, call, samples)[1] for call, samples in zip(single, rest, strict=True)]
    frames: list[list[np.ndarray]] = [[], []]
    for _ in range(3):
        rest = [call.audio.push(samples) for call, samples in zip(calls, rest, strict=True)]
        latents = engine.denoise(calls)
        for index, call in enumerate(calls):
            frames[index].append(engine.decode(call, latents[index : index + 1]))
    for some, one in zip(frames, expected, strict=True):
        assert np.abs(np.concatenate(some).astype(int) - one).max() <= 1


def test_what_does_not_change_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, counts = random_engine(), Counter[str]()
    student, vae = engine.student, engine.vae
    watched: dict[str, nn.Module] = {
        "dit": student,
        "audio": student.audio_proj,
        "time": student.time_embedding,
        "keys and values": student.blocks[1].audio_cross_attn.kv_linear,
        "encoder": vae.encoder,
        "decoder": vae.decoder,
    }
    for name, module in watched.items():
        module.register_forward_pre_hook(lambda *_, name=name: counts.update([name]))

    def count(name: str, place: Any, attribute: str) -> None:
        counted: Callable[..., Any] = getattr(place, attribute)
        monkeypatch.setattr(place, attribute, lambda *args, **kw: (counts.update([name]), counted(*args, **kw))[1])

    count("rope", model, "rope_table")
    count("rope", causal, "rope_table")
    count("picture", engine_module, "still_conditioning")
    count("face", engine_module, "box_mask")
    call = engine.open(picture(), 0)
    assert counts == {"encoder": 1, "picture": 2, "face": 1}
    chunks = 5
    made(engine, call, sound(samples_of(engine, chunks)))
    assert counts == {
        "encoder": 1,
        "picture": 2,
        "face": 1,
        "dit": engine.chunk.steps * chunks,
        "audio": chunks,
        "keys and values": chunks,
        "decoder": chunks,
    }


def kept_bytes(thing: object, seen: set[int]) -> int:
    """Of all tensors and arrays that hang on an object; the storage that a view keeps alive counts whole."""
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        known = storage.data_ptr() in seen
        seen.add(storage.data_ptr())
        return 0 if known else storage.nbytes()
    if isinstance(thing, np.ndarray):
        return thing.nbytes if thing.base is None else kept_bytes(thing.base, seen)
    if isinstance(thing, tuple | list):
        return sum(kept_bytes(part, seen) for part in thing)
    if isinstance(thing, torch.Generator) or not hasattr(thing, "__dict__"):
        return 0
    return sum(kept_bytes(part, seen) for part in vars(thing).values())


def test_memory_of_a_call_does_not_grow(engine: Engine) -> None:
    call = engine.open(picture(), 0)
    made(engine, call, sound(samples_of(engine, 3)))
    after_three = kept_bytes(call, set())
    made(engine, call, sound(27 * 8 * 640, 1))
    assert call.chunk == 30 and kept_bytes(call, set()) == after_three > 10_000


def keeping(plain: Engine, size: int, enlarge: int = 1) -> Engine:
    """The same with the picture's detail."""
    return Engine(
        plain.student,
        plain.vae,
        plain.chunk,
        size,
        plain.device,
        plain.face_box,
        torch.float32,
        features=plain.features,
        keeps_detail=True,
        enlarge=enlarge,
    )


@torch.no_grad()
def test_what_the_autoencoder_loses_of_the_picture_is_put_back() -> None:
    """Chunk by chunk as all at once, and the first frame is the picture."""
    plain = random_engine()
    engine = keeping(plain, plain.height)
    latents, frames = made(engine, engine.open(picture(), 3), sound(samples_of(engine, 4)))
    video = plain.vae.decode(latents)
    whole = to_frames(Detail.of(to_tensor(picture()), video[:, :, :1]).put_back(video))
    assert np.abs(frames.astype(int) - whole).max() <= 1
    assert np.array_equal(frames[0], picture()) and not np.array_equal(to_frames(video)[0], picture())


@torch.no_grad()
def test_a_video_larger_than_what_is_made() -> None:
    """The models make the same, and the first frame is the larger picture."""
    plain = random_engine()
    engine, large = keeping(plain, 2 * plain.height, 2), picture().repeat(2, 0).repeat(2, 1)
    large[::2, ::2] //= 2
    samples = sound(samples_of(engine, 4))
    latents, frames = made(engine, engine.open(large, 3), samples)
    small = fit_image(large, plain.size)
    assert torch.equal(latents, made(plain, plain.open(small, 3), samples)[0])
    assert frames.shape[1:3] == (2 * plain.height, 2 * plain.width) and np.array_equal(frames[0], large)
