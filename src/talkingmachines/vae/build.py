"""The autoencoder that a configuration describes."""

from talkingmachines.vae.config import VAEConfig
from talkingmachines.vae.model import CausalVAE
from talkingmachines.vae.wan import WanVAE
from talkingmachines.vae.wan_config import WanVAEConfig


def build_vae(config: VAEConfig | WanVAEConfig) -> CausalVAE | WanVAE:
    """With random weights. Both kinds have the same methods."""
    return WanVAE(config) if isinstance(config, WanVAEConfig) else CausalVAE(config)
