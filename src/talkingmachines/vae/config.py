"""Numbers that define a causal video autoencoder."""

from dataclasses import dataclass

from talkingmachines.errors import ConfigError

TEMPORAL_STRIDE = 4
"""Video frames per latent frame after the first, as in Wan2.1."""


@dataclass(frozen=True)
class VAEConfig:
    """Widths are those at 1/8 and at 1/4 of the picture's size; depths count residual layers there."""

    latent_channels: int = 32
    spatial_stride: int = 8
    encoder_widths: tuple[int, int] = (96, 64)
    encoder_depths: tuple[int, int] = (2, 2)
    decoder_widths: tuple[int, int] = (128, 64)
    decoder_depths: tuple[int, int] = (3, 3)

    def __post_init__(self) -> None:
        if self.spatial_stride != 8:
            raise ConfigError(f"spatial_stride must be 8, got {self.spatial_stride}")
        widths = (*self.encoder_widths, *self.decoder_widths)
        if any(width % 4 for width in widths):
            raise ConfigError(f"autoencoder widths must be multiples of 4, got {widths}")
        if min(*self.encoder_depths, *self.decoder_depths, self.latent_channels) < 1:
            raise ConfigError(f"depths and latent_channels must be positive, got {self}")
