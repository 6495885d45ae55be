"""Numbers that define Wan2.1's causal video autoencoder."""

from dataclasses import dataclass

from talkingmachines.errors import ConfigError

_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclass(frozen=True)
class WanVAEConfig:
    """The defaults are Wan2.1's own: 127 M parameters.

    dim: width at full size; dim_mult: widths at 1, 1/2, 1/4 and 1/8 of it, as multiples. num_res_blocks: residual
    layers of the encoder at each size; the decoder has one more. temporal_downsample: which of the encoder's three
    halvings of the picture also halve time; the decoder mirrors them. latent_mean, latent_std: of each channel over
    Wan's training data, which `encode` takes out and `decode` puts back.
    """

    dim: int = 96
    latent_channels: int = 16
    dim_mult: tuple[int, int, int, int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, bool, bool] = (False, True, True)
    latent_mean: tuple[float, ...] = _MEAN
    latent_std: tuple[float, ...] = _STD

    def __post_init__(self) -> None:
        if min(self.dim, self.latent_channels, self.num_res_blocks, *self.dim_mult) < 1:
            raise ConfigError(f"dim, latent_channels, num_res_blocks and dim_mult must be positive, got {self}")
        if self.dim % 2:
            raise ConfigError(f"WanVAEConfig.dim must be even, got {self.dim}")
        if len(self.dim_mult) != 4 or len(self.temporal_downsample) != 3:
            raise ConfigError(
                f"dim_mult must have 4 values and temporal_downsample 3, got {self.dim_mult} and "
                f"{self.temporal_downsample}"
            )
        if sum(self.temporal_downsample) != 2:
            raise ConfigError(f"temporal_downsample must hold two True, got {self.temporal_downsample}")
        if len(self.latent_mean) != self.latent_channels or len(self.latent_std) != self.latent_channels:
            raise ConfigError(
                f"latent_mean and latent_std must have {self.latent_channels} values, "
                f"got {len(self.latent_mean)} and {len(self.latent_std)}"
            )
        if min(self.latent_std) <= 0:
            raise ConfigError(f"latent_std must be positive, got {self.latent_std}")

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent row and column."""
        return 8
