"""wav2vec2 as the MultiTalk family calls it, whole and in pieces, with tiny random models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.audio.alignment import audio_windows
from talkingmachines.encoders.speech import Moments, SpeechEncoder, load_speech_encoder, streaming_error
from talkingmachines.errors import CheckpointError

transformers = pytest.importorskip("transformers")

FRAME = 640
FORMAT = {"format": "pt"}
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def model(**other: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        **{
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "conv_dim": (8,) * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
            **other,
        }
    )
    made = transformers.Wav2Vec2Model(config).eval()
    # A fresh transformer hardly changes what goes through it.
    for layer in made.encoder.layers:
        for linear in layer.modules():
            if isinstance(linear, torch.nn.Linear):
                torch.nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    # As loud as the epsilon of its norm, some of it: how loud the samples come matters then.
    made.feature_extractor.conv_layers[0].conv.weight.data *= torch.logspace(-3, 0, 8)[:, None, None]
    return made


def save(folder: Path, do_normalize: bool = False) -> None:
    model().save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)


def speech(frames: int, seed: int = 0) -> Tensor:
    """Syllables of a buzz with a pause now and then: loud and quiet, as speech is."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(frames * FRAME) / 16_000
    buzz = sum(torch.sin(2 * torch.pi * 120 * k * time) / k for k in range(1, 20))
    loudness = (torch.sin(2 * torch.pi * 3.1 * time) * torch.sin(2 * torch.pi * 0.4 * time)).clamp(min=0)
    return (0.1 * buzz * loudness + 0.003 * torch.randn(len(time), generator=generator) + 0.01)[None]


def in_pieces(encoder: SpeechEncoder, samples: Tensor, frames: list[int]) -> Tensor:
    state, parts = None, []
    for piece in samples.split([FRAME * count for count in frames], 1):
        made, state = encoder.features_next(piece, state)
        parts.append(made)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 25, 60])
def test_whole_recording_equals_the_library(frames: int, do_normalize: bool) -> None:
    """transformers' own pass over samples of -23 LUFS, with its columns brought to 25 Hz as MultiTalk does."""
    wav2vec2, samples = model(), speech(25 + frames)[:, 25 * FRAME :]
    prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    loud = samples[0] * (10**-2.3 / samples.var(correction=0)).sqrt()
    prepared = prepare(loud.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    extract = wav2vec2.feature_extractor.forward
    made = SpeechEncoder(wav2vec2, do_normalize=do_normalize).features(samples)
    wav2vec2.feature_extractor.forward = lambda values: F.interpolate(
        extract(values), size=frames, mode="linear", align_corners=True
    )
    with torch.no_grad():
        theirs = wav2vec2(prepared, output_hidden_states=True).hidden_states[1:]
    assert made.shape == (1, frames, 3, 16)
    torch.testing.assert_close(made, torch.stack(theirs, 2), **CLOSE)


def test_features_fit_what_the_transformer_hears() -> None:
    windows = audio_windows(SpeechEncoder(model()).features(speech(9)), window=5)
    assert windows.first.shape == (1, 1, 5, 3, 16) and windows.rest.shape == (1, 2, 8, 3, 16)


def test_columns_do_not_look_ahead() -> None:
    """At whole frames 25 Hz is every second column, and it sees its own frame alone but for the loudness."""
    wav2vec2 = model()
    samples = speech(6)
    columns = wav2vec2.feature_extractor(samples)
    assert columns.shape[-1] == 11
    torch.testing.assert_close(
        F.interpolate(columns, size=6, mode="linear", align_corners=True), columns[..., ::2], **CLOSE
    )
    later = samples.clone()
    later[:, 3 * FRAME :] += 0.1
    convs = [layer.conv for layer in wav2vec2.feature_extractor.conv_layers]
    raw, changed = samples[:, None], later[:, None]
    for conv in convs:
        raw, changed = F.gelu(conv(raw)), F.gelu(conv(changed))
    assert torch.equal(raw[..., :5], changed[..., :5]) and not torch.equal(raw[..., 6:], changed[..., 6:])


@pytest.mark.parametrize("do_normalize", [True, False])
def test_a_stream_of_one_piece_is_the_whole_recording(do_normalize: bool) -> None:
    """Two ways to the same numbers: loudness taken out of the samples, and out of the first layer's moments."""
    encoder, samples = SpeechEncoder(model(), do_normalize=do_normalize), speech(40)
    torch.testing.assert_close(in_pieces(encoder, samples, [40]), encoder.features(samples), **CLOSE)
    torch.testing.assert_close(in_pieces(encoder, 3 * samples, [40]), encoder.features(samples), **CLOSE)


def test_how_loud_it_is_heard_matters() -> None:
    """Or the tests above would say nothing."""
    loud, quiet = (SpeechEncoder(model(), do_normalize=way).features(speech(40)) for way in (True, False))
    assert (loud - quiet).std() > 0.2 * loud.std()


def test_silence_is_finite() -> None:
    encoder, silence = SpeechEncoder(model()), torch.zeros(1, 12 * FRAME)
    assert encoder.features(silence).isfinite().all()
    assert in_pieces(encoder, silence, [9, 3]).isfinite().all()


@pytest.mark.parametrize("noise", [0.0, 1e-4], ids=["digital", "-80 dBFS"])
@pytest.mark.parametrize("before", [0, 24])
def test_a_minute_of_silence_changes_nothing_of_how_loud_speech_is_heard(before: int, noise: float) -> None:
    encoder, spoken = SpeechEncoder(model(), past_frames=0), speech(60)
    silence = noise * torch.randn(1, 1500 * FRAME, generator=torch.Generator().manual_seed(0))
    first, then = spoken.split([before * FRAME, (60 - before) * FRAME], 1)
    made = in_pieces(encoder, torch.cat([first, silence, then], 1), [12] * 130)
    assert torch.equal(made[:, before + 1500 :], in_pieces(encoder, spoken, [12] * 5)[:, before:])


def test_a_stream_hears_nothing_later_and_a_bounded_past() -> None:
    encoder = SpeechEncoder(model(), past_frames=20)
    samples, later = speech(60), speech(60)
    later[:, 48 * FRAME :] += 0.1
    pieces = [12] * 5
    made, changed = in_pieces(encoder, samples, pieces), in_pieces(encoder, later, pieces)
    assert torch.equal(made[:, :48], changed[:, :48]) and not torch.equal(made[:, 48:], changed[:, 48:])
    _, short = encoder.features_next(speech(12), None)
    for seed in range(4):
        _, short = encoder.features_next(speech(12, seed), short)
    assert short.columns.shape == (1, 20, 8) and short.columns.untyped_storage().nbytes() == 4 * 20 * 8


def test_a_state_can_be_used_twice() -> None:
    encoder = SpeechEncoder(model())
    _, state = encoder.features_next(speech(12), None)
    made, _ = encoder.features_next(speech(12, 1), state)
    encoder.features_next(speech(12, 2), state)
    assert torch.equal(encoder.features_next(speech(12, 1), state)[0], made)


def test_streaming_error_is_bounded_and_falls_with_the_past() -> None:
    """It does not vanish: the whole recording also knows what comes. Here 0.18 to 0.28 with 5 s of past, layer by
    layer, 0.41 to 0.72 with none. These are random weights: what a trained model gives is to be measured with it.
    """
    wav2vec2, samples = model(), speech(300)
    errors = {past: streaming_error(SpeechEncoder(wav2vec2, past), samples) for past in (0, 12, 125)}
    assert errors[125].shape == (3,)
    assert (errors[125] < 0.3).all()
    assert errors[125].mean() < errors[12].mean() < errors[0].mean()
    whole = streaming_error(SpeechEncoder(wav2vec2, 300), samples, frames=300)
    assert (whole < 1e-3).all()


def test_moments_are_those_of_all_values() -> None:
    values = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 100
    moments = Moments(0, torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    for piece in values.split([1, 399, 600], 1):
        moments = moments.after(piece)
    torch.testing.assert_close(moments.mean, values.mean(1))
    torch.testing.assert_close(moments.variance, values.var(1, correction=0))


@pytest.mark.parametrize("do_normalize", [True, False])
def test_read_from_a_folder(tmp_path: Path, do_normalize: bool) -> None:
    save(tmp_path, do_normalize)
    read = load_speech_encoder(tmp_path, torch.device("cpu"))
    assert (read.layers, read.width) == (3, 16)
    same = SpeechEncoder(model(), do_normalize=do_normalize)
    torch.testing.assert_close(read.features(speech(9)), same.features(speech(9)))
    with pytest.raises(CheckpointError, match="holds no Wav2Vec2Model"):
        load_speech_encoder(tmp_path / "nothing", torch.device("cpu"))


def test_how_loud_it_hears_is_not_guessed(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"no Wav2Vec2FeatureExtractor, get it again: .*preprocessor_config"):
        load_speech_encoder(tmp_path, torch.device("cpu"))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no Wav2Vec2FeatureExtractor, get it again"):
        load_speech_encoder(tmp_path, torch.device("cpu"))


def test_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="wav2vec2-base"):
        SpeechEncoder(model(feat_extract_norm="layer"))


def test_half_a_download_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    # Without the mask of training, as some publish it.
    save_file({name: tensors[name] for name in tensors if "masked" not in name}, tmp_path / "model.safetensors", FORMAT)
    assert load_speech_encoder(tmp_path, torch.device("cpu")).layers == 3
    save_file(
        {name: tensors[name] for name in tensors if "layers.2" not in name}, tmp_path / "model.safetensors", FORMAT
    )
    with pytest.raises(CheckpointError, match=r"holds no Wav2Vec2Model: it lacks encoder.layers.2.* get it again"):
        load_speech_encoder(tmp_path, torch.device("cpu"))
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="holds no Wav2Vec2Model, get it again"):
        load_speech_encoder(tmp_path, torch.device("cpu"))


def test_names_as_they_are_published(tmp_path: Path) -> None:
    """With heads of pretraining beside it, and the weight norm of earlier versions of torch."""
    save(tmp_path)
    file, parts = tmp_path / "model.safetensors", {"original0": "weight_g", "original1": "weight_v"}
    old = {}
    for name, tensor in load_file(file).items():
        for new, before in parts.items():
            name = name.replace(f"parametrizations.weight.{new}", before)
        old[f"wav2vec2.{name}"] = tensor
    save_file(old | {"project_q.weight": torch.zeros(2, 2)}, file, FORMAT)
    read = load_speech_encoder(tmp_path, torch.device("cpu"))
    torch.testing.assert_close(read.features(speech(9)), SpeechEncoder(model()).features(speech(9)))
