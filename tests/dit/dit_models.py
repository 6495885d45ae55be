"""Small models and their input."""

from dataclasses import replace

import torch
from random_weights import randomise
from torch import Tensor

from talkingmachines.audio.alignment import audio_windows, frames_in
from talkingmachines.dit.conditioning import Conditioning
from talkingmachines.dit.config import AudioConfig, DiTConfig, ImageConfig, RefinerConfig, TextConfig, WarpConfig
from talkingmachines.dit.model import DiT

AUDIO = AudioConfig(feature_dim=6, feature_layers=2, hidden=16, context_tokens=3, width=12)
SMALL = DiTConfig(
    width=48,
    ffn_width=64,
    heads=2,
    layers=2,
    freq_dim=32,
    audio=AUDIO,
    refiner=RefinerConfig(8, 1, 4, WarpConfig(2, 3)),
    previous=True,
    prediction="x0",
)
WAN = replace(
    SMALL,
    refiner=None,
    previous=False,
    prediction="velocity",
    text=TextConfig(dim=10, length=5),
    image=ImageConfig(dim=14, tokens=4),
)


def random_model(config: DiTConfig, seed: int = 0) -> DiT:
    model = DiT(config).eval()
    randomise(model, seed, gain=1.5, vectors=0.3)
    return model


def conditioning(config: DiTConfig, F: int = 3, B: int = 2, H: int = 4, W: int = 6, seed: int = 0) -> Conditioning:
    """Random; the first latent frame is given."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    mask = torch.zeros(B, config.mask_channels, F, H, W)
    mask[:, :, 0] = 1
    text, image, audio = config.text, config.image, config.audio
    heard = audio and randn(B, frames_in(F), audio.feature_layers, audio.feature_dim)
    return Conditioning(
        latents=randn(B, config.latent_channels, F, H, W),
        mask=mask,
        text=randn(B, text.length, text.dim) if text else None,
        image=randn(B, image.tokens, image.dim) if image else None,
        audio=None if heard is None else audio_windows(heard, audio.window),
        mode=torch.randint(2, (B, F), generator=generator),
        previous=randn(B, config.latent_channels, F, H, W),
    )


def noisy(cond: Conditioning, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(cond.latents.shape, generator=generator)
    return x, torch.rand(len(x), generator=generator) * 0.9 + 0.1
