"""The same engine with all that the large models have: prompt, picture tokens, encoded speech, Wan's autoencoder."""

from collections import Counter

import numpy as np
import pytest
import torch
from stream_models import samples_of, sound
from test_engine import kept_bytes, made
from wan_models import (
    SomeTokens,
    encoders,
    speech_encoder,
    tiny_wan,
    wan_engine,
    wan_models,
    wan_picture,
    whole_wan_call,
)

from talkingmachines.avatar import Avatar
from talkingmachines.encoders.encoders import Encoders
from talkingmachines.encoders.speech import SpeechEncoder
from talkingmachines.errors import CheckpointError, ConfigError
from talkingmachines.flow.chunk import ChunkConfig
from talkingmachines.streaming.engine import Engine
from talkingmachines.streaming.features import LogMelStream, SpeechStream
from talkingmachines.streaming.session import Session
from talkingmachines.vae.taehv import MemoryBlock, TinyWanVAE

CPU = torch.device("cpu")
TEXT = torch.randn(1, 5, 10, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(1, 4, 14, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tiny_decoder", [False, True], ids=["Wan's decoder", "tiny decoder"])
@pytest.mark.parametrize("chunk", [None, ChunkConfig(frames=3, window=4)], ids=["tiny", "threes"])
@torch.no_grad()
def test_chunks_equal_the_whole(chunk: ChunkConfig | None, tiny_decoder: bool) -> None:
    """Six chunks, before and after the window slides, of a picture that is no square."""
    hearing = speech_encoder()
    engine = wan_engine(chunk, tiny_decoder, hearing)
    samples = sound(samples_of(engine, 6))
    call = engine.open(wan_picture(), 3, text=TEXT, picture=TOKENS)
    latents, frames = made(engine, call, samples)
    whole, video = whole_wan_call(engine, hearing, wan_picture(), samples, 3, TEXT, TOKENS)
    torch.testing.assert_close(latents, whole, atol=1e-4, rtol=1e-4)
    assert frames.shape == video.shape == (len(samples) // 640, 32, 48, 3) and frames.std() > 1
    assert np.abs(frames.astype(int) - video).max() <= 1


def test_a_session_makes_the_same_frames_in_pieces() -> None:
    engine = wan_engine()
    samples = sound(samples_of(engine, 4))
    _, frames = made(engine, engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS), samples)
    session = Session(engine, engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS))
    shown = [frame for piece in np.split(samples, [100, 7000, 7001]) for frame in session.push_audio(piece)]
    assert np.array_equal(np.stack([frame.pixels for frame in shown]), frames)


def test_prompt_and_picture_tokens_matter() -> None:
    engine = wan_engine()
    samples = sound(samples_of(engine, 2))
    first = made(engine, engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS), samples)[0]
    for text, tokens in ((TEXT + 1, TOKENS), (TEXT, TOKENS.roll(1, 2))):
        other = made(engine, engine.open(wan_picture(), 0, text=text, picture=tokens), samples)[0]
        assert (other - first).abs().max() > 1e-3


def test_calls_in_one_batch_equal_calls_alone() -> None:
    engine = wan_engine()
    samples = [sound(samples_of(engine, 3), seed) for seed in range(2)]
    told = [(TEXT, TOKENS), (TEXT + 1, TOKENS.roll(1, 2))]
    alone, together = (
        [engine.open(wan_picture(i), i, text=text, picture=tokens) for i, (text, tokens) in enumerate(told)]
        for _ in range(2)
    )
    expected = [made(engine, call, one)[0] for call, one in zip(alone, samples, strict=True)]
    for chunk in range(3):
        samples = [call.audio.push(one) for call, one in zip(together, samples, strict=True)]
        latents = engine.denoise(together)
        for index in range(2):
            torch.testing.assert_close(
                latents[index], expected[index][0, :, 2 * chunk : 2 * chunk + 2], atol=1e-4, rtol=1e-4
            )


def test_later_sound_never_changes_an_earlier_frame() -> None:
    """To the bit, through wav2vec2 and Wan's decoder too."""
    engine = wan_engine()
    samples = sound(samples_of(engine, 5))
    later = samples.copy()
    later[samples_of(engine, 3) :] *= -0.5
    _, frames = made(engine, engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS), samples)
    _, changed = made(engine, engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS), later)
    known = samples_of(engine, 3) // 640
    assert np.array_equal(frames[:known], changed[:known]) and not np.array_equal(frames[known:], changed[known:])


def test_what_does_not_change_is_computed_once() -> None:
    """Text and picture tokens once for a call, the modulations once for all calls, what is heard once for a chunk."""
    engine, counts, chunks = wan_engine(), Counter[str](), 5
    layer = engine.student.blocks[1]
    watched = {
        "dit": engine.student,
        "time": engine.student.time_embedding,
        "text": engine.student.text_embedding,
        "text keys": layer.cross_attn.k,
        "image": engine.student.img_emb,
        "image keys": layer.cross_attn.k_img,
        "audio": engine.student.audio_proj,
        "audio keys": layer.audio_cross_attn.kv_linear,
    }
    for name, module in watched.items():
        module.register_forward_pre_hook(lambda *_, name=name: counts.update([name]))
    call = engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS)
    told = {"text": 1, "text keys": 1, "image": 1, "image keys": 1}
    assert counts == told
    made(engine, call, sound(samples_of(engine, chunks)))
    assert counts == told | {"dit": engine.chunk.steps * chunks, "audio": chunks, "audio keys": chunks}


def test_memory_of_a_call_does_not_grow() -> None:
    engine = wan_engine(speech=SpeechEncoder(speech_encoder()._model, past_frames=20))
    call = engine.open(wan_picture(), 0, text=TEXT, picture=TOKENS)
    made(engine, call, sound(samples_of(engine, 4)))
    after_four = kept_bytes(call, set())
    made(engine, call, sound(4 * 8 * 640, 1))
    assert kept_bytes(call, set()) == after_four > 10_000


def test_after_a_drop_columns_are_forgotten_and_loudness_is_not() -> None:
    stream, fresh = SpeechStream(speech_encoder()), SpeechStream(speech_encoder())
    piece = torch.from_numpy(sound(8 * 640))[None]
    stream.push(10 * piece)
    stream.cut()
    assert stream._state is not None and stream._state.columns.shape[1] == 0
    assert stream._state.samples.count == 8 * 640
    assert not torch.equal(stream.push(piece), fresh.push(piece))
    fresh.cut()
    assert SpeechStream(speech_encoder()).cut() is None
    mel = LogMelStream()
    first = mel.push(piece)
    mel.cut()
    assert torch.equal(mel.push(piece), first)


def avatar(told: Encoders | None = None) -> Avatar:
    return Avatar(tiny_wan(), wan_models()[1], wan_models()[0], CPU, torch.float32, encoders=told, shape=(32, 48))


def test_an_avatar_tells_its_calls_of_prompt_and_picture() -> None:
    speech, picture = sound(20_000), np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    told = encoders()
    clip = avatar(told).generate(picture, speech)
    assert clip.shape == (32, 32, 48, 3)
    assert isinstance(told.tokens, SomeTokens) and told.tokens.asked == 1
    assert not np.array_equal(clip, avatar(encoders("silence")).generate(picture, speech))


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match="needs encoders of text, pictures and speech"):
        avatar()
    with pytest.raises(CheckpointError, match="hears 12 layers of 16, this speech encoder has 3 of 16"):
        avatar(Encoders(SomeTokens(), speech_encoder(num_hidden_layers=3)))
    with pytest.raises(ConfigError, match="multiples of 16, got 32 wide and 40 high"):
        Avatar(tiny_wan(), wan_models()[1], wan_models()[0], CPU, encoders=encoders(), shape=(40, 32))


def test_no_picture_is_coded_once_for_all_calls() -> None:
    engine: Engine = wan_engine()
    counts: list[int] = []
    assert hasattr(engine.vae, "encoder")
    engine.vae.encoder.register_forward_pre_hook(lambda *_: counts.append(1))
    calls = [engine.open(wan_picture(seed), seed, text=TEXT, picture=TOKENS) for seed in range(2)]
    assert len(counts) == 2, "each picture with what follows it"
    assert calls[0].going_on.latents.data_ptr() == calls[1].going_on.latents.data_ptr()
    assert not calls[0].going_on.mask.any() and calls[0].opening.mask[:, :, 0].all()
    assert not calls[0].opening.mask[:, :, 1:].any()


@pytest.mark.parametrize("tiny_decoder", [False, True], ids=["Wan's decoder", "tiny decoder"])
@torch.inference_mode()
def test_decoders_compile_in_one_piece_and_for_all_later_chunks(tiny_decoder: bool) -> None:
    """Traced and run as they are: that their states go in and out, and that no chunk is compiled anew."""
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    vae, compiled = wan_models(tiny_decoder)[1], wan_models(tiny_decoder)[1]
    counter = CompileCounter()
    decoders = compiled.tiny.decoder if isinstance(compiled, TinyWanVAE) else [compiled.decoder]
    for layer in decoders:
        if not isinstance(compiled, TinyWanVAE) or isinstance(layer, MemoryBlock):
            layer.compile(backend=counter, dynamic=False)
    latents = torch.randn(1, 16, 8, 2, 2, generator=torch.Generator().manual_seed(0))
    state = other = None
    counts = []
    for piece in latents.split(2, 2):
        video, state = vae.decode_next(piece, state)
        same, other = compiled.decode_next(piece, other)
        torch.testing.assert_close(same, video, atol=1e-5, rtol=1e-5)
        counts.append(counter.frame_count)
    assert counts[0] > 0 and counts[-1] == counts[1], counts
    torch.compiler.reset()


@pytest.mark.slow
def test_a_compiled_engine_makes_the_same_call() -> None:
    spec, (student, vae) = tiny_wan(), wan_models()
    hearing = speech_encoder()
    engine = Engine(
        student,
        vae,
        spec.chunk,
        (32, 48),
        CPU,
        spec.sampling.face_box,
        torch.float32,
        features=SpeechStream.maker(hearing),
        compile=True,
    )
    plain = wan_engine(speech=hearing)
    samples = sound(samples_of(engine, 5))
    latents, frames = made(engine, engine.open(wan_picture(), 3, text=TEXT, picture=TOKENS), samples)
    wanted, video = made(plain, plain.open(wan_picture(), 3, text=TEXT, picture=TOKENS), samples)
    torch.testing.assert_close(latents, wanted, atol=1e-4, rtol=1e-4)
    assert np.abs(frames.astype(int) - video).max() <= 1
