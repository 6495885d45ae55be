"""Speech as the MultiTalk family hears it: wav2vec2, all layers, at 25 frames a second.

The convolutions make 50 columns a second, which are brought to 25 before the transformer. Over whole video frames
that takes every second column, and a column sees 400 samples of its own frame's 640: up to here nothing looks ahead.
Two things do. The transformer attends both ways over the whole recording, and its position convolution sees 2.6 s
on both sides; and the first convolution is normalised over the whole recording. A live call has only the past of both,
so its features are an approximation. `streaming_error` measures it. A student should be trained on streamed features.

B batch, T video frames, N layers, D width, C channels of the first convolution, J its columns.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from talkingmachines.encoders.loading import from_pretrained, model_from_pretrained
from talkingmachines.errors import CheckpointError
from talkingmachines.types import FPS, SAMPLES_PER_FRAME

PAST_FRAMES = 5 * FPS
"""How far back a stream hears unless said otherwise."""

_SAMPLE_EPS = 1e-7
"""What wav2vec2's preparation adds to the variance of a recording, where it normalises."""

_POWER = 10**-2.3
"""Variance of speech at -23 LUFS, to which InfiniteTalk and MultiTalk bring a recording before wav2vec2 hears it.

In the package's recordings loudness as ITU-R BS.1770 has it is 0.2 to 0.6 dB less than their variance in dB.
"""

_SILENCE = 1e-7
"""Variance of a piece that says nothing of how loud a stream is: -70 LUFS, below which BS.1770 counts nothing."""


@dataclass(frozen=True)
class Moments:
    """Of all values so far: how many, their mean, and their summed squared distance from it."""

    count: int
    mean: Tensor
    squares: Tensor

    @property
    def variance(self) -> Tensor:
        return self.squares / max(self.count, 1)

    def after(self, values: Tensor) -> "Moments":
        """With more values [..., n] (Chan et al. 1979), in float64: an hour has a billion of them."""
        values = values.double()
        count = self.count + values.shape[-1]
        mean = values.mean(-1)
        squares = (values - mean[..., None]).square().sum(-1)
        apart = mean - self.mean
        return Moments(
            count,
            self.mean + apart * (values.shape[-1] / count),
            self.squares + squares + apart.square() * (self.count * values.shape[-1] / count),
        )


@dataclass(frozen=True)
class SpeechState:
    """What a stream keeps: moments of the samples [] and of the first convolution [C], of all pieces but silent ones,
    and the last columns, one a frame, [1, past, columns' channels].
    """

    samples: Moments
    first: Moments
    columns: Tensor


class SpeechEncoder:
    """wav2vec2 of the base kind: 12 layers of 768 (AudioConfig.feature_layers, feature_dim).

    model: a Wav2Vec2Model for inference. past_frames: how far back a stream hears. do_normalize: of its
    preprocessor_config.json, whether it hears sound of variance 1, as chinese-wav2vec2-base does not.
    """

    def __init__(self, model: Any, past_frames: int = PAST_FRAMES, do_normalize: bool = False) -> None:
        config = model.config
        if config.feat_extract_norm != "group" or config.do_stable_layer_norm or config.add_adapter:
            raise CheckpointError(
                "the speech encoder must be of the kind of wav2vec2-base: group norm, layer norm after each layer"
            )
        self._model, self._past = model.eval().requires_grad_(False), past_frames
        self._power = 1.0 if do_normalize else _POWER

    @property
    def layers(self) -> int:
        return self._model.config.num_hidden_layers

    @property
    def width(self) -> int:
        return self._model.config.hidden_size

    @torch.no_grad()
    def features(self, samples: Tensor) -> Tensor:
        """A whole recording, [1, 640 * T] in [-1, 1] -> [1, T, N, D], as the large models were trained to hear it."""
        frames = _frames(samples)
        samples = samples.to(self._model.device, torch.float32)
        variance, mean = torch.var_mean(samples, dim=1, correction=0, keepdim=True)
        columns = self._model.feature_extractor((samples - mean) * (self._power / (variance + _SAMPLE_EPS)).sqrt())
        return self._transform(_at_frame_rate(columns, frames))

    @torch.no_grad()
    def features_next(self, samples: Tensor, state: SpeechState | None) -> tuple[Tensor, SpeechState]:
        """The next piece of a stream: [1, 640 * T] -> [1, T, N, D], after what made `state` (None: the start).

        Nothing after the piece is heard, and of what came before it the last `past_frames`. Loudness is that of the
        stream so far, without earlier silence: a call listens more than it speaks.
        """
        frames, silent = _frames(samples), bool(samples.var(correction=0) < _SILENCE)
        samples = samples.to(self._model.device, torch.float32)
        opening = self._model.feature_extractor.conv_layers[0]
        made_CJ = opening.conv(samples[:, None])
        before = state or self._empty()
        heard, first = before.samples.after(samples[0]), before.first.after(made_CJ[0])
        columns = opening.activation(_normalised(made_CJ, opening.layer_norm, first, heard, self._power))
        for layer in self._model.feature_extractor.conv_layers[1:]:
            columns = layer(columns)
        known = torch.cat([before.columns, _at_frame_rate(columns, frames)], 1)
        made = self._transform(known)[:, -frames:]
        if silent:
            heard, first = before.samples, before.first
        return made, SpeechState(heard, first, known[:, max(0, known.shape[1] - self._past) :].clone())

    def _empty(self) -> SpeechState:
        config, device = self._model.config, self._model.device
        zero = torch.zeros((), dtype=torch.float64, device=device)
        none = torch.zeros(config.conv_dim[0], dtype=torch.float64, device=device)
        columns = torch.zeros(1, 0, config.conv_dim[-1], device=device)
        return SpeechState(Moments(0, zero, zero), Moments(0, none, none), columns)

    def _transform(self, columns: Tensor) -> Tensor:
        """[1, T, ...] -> what each layer of the transformer makes of them, [1, T, N, D]."""
        encoder = self._model.encoder
        hidden, _ = self._model.feature_projection(columns)
        hidden = encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden))
        made = []
        for layer in encoder.layers:
            hidden = layer(hidden)
            made.append(hidden)
        return torch.stack(made, 2)


def load_speech_encoder(source: str | Path, device: torch.device, past_frames: int = PAST_FRAMES) -> SpeechEncoder:
    """wav2vec2 from a folder or the hub, such as TencentGameMate/chinese-wav2vec2-base, which MultiTalk uses.

    Its preprocessor_config.json must be there, too: nothing else says how loud it hears.
    Raises MissingPackageError, CheckpointError.
    """
    model = model_from_pretrained("Wav2Vec2Model", source, "", torch.float32).to(device)
    return SpeechEncoder(model, past_frames, from_pretrained("Wav2Vec2FeatureExtractor", source).do_normalize)


def streaming_error(encoder: SpeechEncoder, samples: Tensor, frames: int = 12) -> Tensor:
    """How far features in pieces of `frames` video frames are from those of the whole recording [1, 640 * T].

    For each layer [N]: the norm of the difference over the norm of the whole's variation around its mean.
    """
    whole = encoder.features(samples)
    state: SpeechState | None = None
    parts = []
    for piece in samples.split(frames * SAMPLES_PER_FRAME, 1):
        made, state = encoder.features_next(piece, state)
        parts.append(made)
    difference = (torch.cat(parts, 1) - whole).square().sum((0, 1, 3))
    return (difference / (whole - whole.mean(1, keepdim=True)).square().sum((0, 1, 3))).sqrt()


def _frames(samples: Tensor) -> int:
    count = samples.shape[1]
    assert len(samples) == 1 and count and count % SAMPLES_PER_FRAME == 0, f"{list(samples.shape)}: not whole frames"
    return count // SAMPLES_PER_FRAME


def _at_frame_rate(columns: Tensor, frames: int) -> Tensor:
    """[1, C, J] at 50 Hz -> [1, T, C] at 25, linearly with the ends in place."""
    return F.interpolate(columns, size=frames, mode="linear", align_corners=True).transpose(1, 2)


def _normalised(made: Tensor, norm: Any, first: Moments, heard: Moments, power: float) -> Tensor:
    """The first convolution's group norm, with the moments of the stream instead of the piece's own.

    The samples are brought to the variance `power` before this layer. That only scales what the layer makes, so
    instead the layer's epsilon is scaled, the other way.
    """
    variance = first.variance + norm.eps * (heard.variance + _SAMPLE_EPS) / power
    scale = norm.weight.double() / variance.sqrt()
    shift = norm.bias.double() - first.mean * scale
    return (made * scale[:, None] + shift[:, None]).to(made.dtype)
