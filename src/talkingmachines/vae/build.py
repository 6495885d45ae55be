"""The autoencoder that a configuration describes, and what all kinds have in common."""

from typing import Any, Protocol

from torch import Tensor

from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.wan import WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig


class VideoVAE(Protocol):
    """CausalVAE, WanVAE, TinyWanVAE: see CausalVAE for what the methods do. Each has a decoder state of its own."""

    @property
    def config(self) -> VAEConfig | WanVAEConfig: ...

    @property
    def latent_mean(self) -> Tensor: ...

    def encode(self, video: Tensor, /) -> Tensor: ...

    def encode_image(self, image: Tensor, /) -> Tensor: ...

    def decode(self, latents: Tensor, /) -> Tensor: ...

    def decode_next(self, latents: Tensor, state: Any, /) -> tuple[Tensor, Any]: ...

    def compile_decoder(self) -> None: ...


def build_vae(config: VAEConfig | WanVAEConfig) -> CausalVAE | WanVAE:
    """With random weights. Both kinds have the same methods."""
    return WanVAE(config) if isinstance(config, WanVAEConfig) else CausalVAE(config)
