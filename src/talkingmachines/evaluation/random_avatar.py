"""A preset without its weights: random ones are as fast as trained ones, and of no other use."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from talkingmachines.avatar import Avatar, beside, in_steps, made_shape, narrowed, with_tiny_decoder
from talkingmachines.dit.config import ImageConfig, TextConfig
from talkingmachines.dit.fp8 import Float8Errors, check_fp8, quantise_fp8
from talkingmachines.dit.weights import unfilled
from talkingmachines.encoders.encoders import Encoders
from talkingmachines.encoders.gestures import Gestures
from talkingmachines.encoders.hearing import Hearing
from talkingmachines.encoders.loading import transformers_class
from talkingmachines.encoders.speech import SpeechEncoder
from talkingmachines.memory import check_memory
from talkingmachines.precision import weights_dtype
from talkingmachines.presets import Preset, preset
from talkingmachines.streaming.features import HearingStream, MakeFeatures
from talkingmachines.vae.build import build_vae
from talkingmachines.vae.taehv import TAEHV


def random_avatar(
    name: str,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    shape: tuple[int, int] | None = None,
    tiny_decoder: bool = False,
    vae_device: str | None = None,
    steps: int | None = None,
    fp8: bool = False,
    compile: bool = False,
) -> tuple[Avatar, Float8Errors | None]:
    """The options are those of avatar.load. With fp8, also what it changes.

    Raises ConfigError for what cannot work here, MissingPackageError if encoders are needed and transformers is not
    there.
    """
    spec = in_steps(preset(name), steps)
    made = made_shape(spec, shape or (spec.size, spec.size))
    vae_place, dtype = beside(device, vae_device, dtype)
    if fp8:
        check_fp8(device)
    check_memory(spec, device, made, fp8, dtype)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        kept = weights_dtype(device, dtype)
        # Before the student, which takes longest: what is missing is said at once.
        told = random_encoders(spec, device)
        vae = with_tiny_decoder(narrowed(build_vae(spec.vae), kept), TAEHV if tiny_decoder else None)
        student = unfilled(spec.dit, kept, device)
        fill(student)
        errors = quantise_fp8(student) if fp8 else None
        features = random_features(spec)
    avatar = Avatar(
        spec,
        vae,
        student,
        device,
        dtype,
        encoders=told,
        features=features,
        shape=shape,
        vae_device=vae_place,
        compile=compile,
    )
    return avatar, errors


def random_features(spec: Preset) -> MakeFeatures | None:
    """Of hearing and gestures without their weights; None for presets that have neither."""
    if spec.hearing is None or spec.gestures is None:
        return None
    return HearingStream.maker(Hearing(spec.hearing).eval(), Gestures(spec.gestures).eval())


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Random values where the parameters are, that keep the scale of what goes through."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(float("norm" in name and name.endswith("weight")))


def random_encoders(spec: Preset, device: torch.device) -> Encoders | None:
    """None for presets that are told of nothing. Raises MissingPackageError."""
    text, image, audio = spec.dit.text, spec.dit.image, spec.dit.audio
    if text is None or image is None or audio is None:
        return None
    config = transformers_class("Wav2Vec2Config")(
        hidden_size=audio.feature_dim,
        num_hidden_layers=audio.feature_layers,
        num_attention_heads=max(1, audio.feature_dim // 64),
        intermediate_size=4 * audio.feature_dim,
    )
    speech = SpeechEncoder(transformers_class("Wav2Vec2Model")(config).to(device))
    return Encoders(RandomTokens(text, image), speech)


class RandomTokens:
    """Tokens of the right shape, the same for all prompts and pictures."""

    def __init__(self, text: TextConfig, image: ImageConfig) -> None:
        self._text, self._image = torch.randn(1, text.length, text.dim), torch.randn(1, image.tokens, image.dim)

    def prompts(self, prompts: Sequence[str]) -> Tensor:
        return self._text.expand(len(prompts), -1, -1)

    def picture(self, picture: np.ndarray) -> Tensor:
        return self._image
