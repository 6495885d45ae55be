"""The numbers that make a DiT: a pocket one or Wan2.1-I2V-14B, by the same classes."""

from dataclasses import dataclass, fields
from typing import Literal

from talkingmachines.attention.rope import axis_widths
from talkingmachines.errors import ConfigError


def _require_positive(config: object) -> None:
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise ConfigError(f"{type(config).__name__}.{field.name} must be positive, got {value}")


@dataclass(frozen=True)
class TextConfig:
    """Text tokens as the text encoder gives them: `length` of them, padded with zeros, each `dim` wide."""

    dim: int = 4096
    length: int = 512

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True)
class ImageConfig:
    """Tokens of the reference picture as the image encoder gives them."""

    dim: int = 1280
    tokens: int = 257

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True)
class AudioConfig:
    """feature_dim: channels per video frame and feature layer; feature_layers: 12 for wav2vec2, 1 for log-mel.

    window: video frames heard by latent frame 0 (odd). Each latent frame's features become context_tokens
    tokens of `width`, through two layers of `hidden`. modes: listening, speaking.
    """

    feature_dim: int
    feature_layers: int = 1
    window: int = 5
    hidden: int = 512
    context_tokens: int = 32
    width: int = 768
    modes: int = 2

    def __post_init__(self) -> None:
        _require_positive(self)
        if self.window % 2 == 0:
            raise ConfigError(f"AudioConfig.window must be odd, got {self.window}")


@dataclass(frozen=True)
class WarpConfig:
    """fine: points of the grid that is moved, in a latent cell, each way; channels: of each of them."""

    fine: int = 8
    channels: int = 3

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True)
class RefinerConfig:
    """width: channels of the convolutions; layers: residual pairs of them; features: channels the tokens add.

    warp: whether, and how finely, the picture is moved; see Warp.
    """

    width: int = 64
    layers: int = 3
    features: int = 32
    warp: WarpConfig | None = None

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True)
class DiTConfig:
    """patch: tokens per (latent frame, row, column). prediction: what the head's output means, see DiT.

    refiner: for patches of many cells; see Refiner. previous: whether the model is also given the latent frame before
    those that it makes, see Conditioning, so that they go on from it. reference: what the conditioning latents hold in
    frames that are not given: the picture's latent again ("repeated"), or what follows a picture that is shown once
    ("once"), as in Wan2.1: the latents of a video of zeros.
    """

    width: int
    ffn_width: int
    heads: int
    layers: int
    latent_channels: int = 16
    mask_channels: int = 4
    patch: tuple[int, int, int] = (1, 2, 2)
    freq_dim: int = 256
    text: TextConfig | None = None
    image: ImageConfig | None = None
    audio: AudioConfig | None = None
    refiner: RefinerConfig | None = None
    previous: bool = False
    prediction: Literal["velocity", "x0"] = "velocity"
    reference: Literal["repeated", "once"] = "repeated"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _require_positive(self)
        if self.width % self.heads:
            raise ConfigError(f"DiTConfig.width {self.width} must be a multiple of heads {self.heads}")
        axis_widths(self.head_width)
        if len(self.patch) != 3 or self.patch[0] != 1 or min(self.patch) < 1:
            raise ConfigError(f"DiTConfig.patch must be (1, rows, columns), got {self.patch}")
        if self.freq_dim % 2:
            raise ConfigError(f"DiTConfig.freq_dim must be even, got {self.freq_dim}")
        if self.image and not self.text:
            raise ConfigError("DiTConfig.image needs DiTConfig.text: they share the cross-attention")
        if self.prediction not in ("velocity", "x0"):
            raise ConfigError(f"DiTConfig.prediction must be 'velocity' or 'x0', got {self.prediction!r}")
        if self.reference not in ("repeated", "once"):
            raise ConfigError(f"DiTConfig.reference must be 'repeated' or 'once', got {self.reference!r}")
        if self.reference == "once" and self.prediction == "x0":
            raise ConfigError("DiTConfig.prediction 'x0' says what changes against the picture: it must be 'repeated'")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def in_channels(self) -> int:
        """Noisy latents, mask, conditioning latents, perhaps the previous ones."""
        return (3 if self.previous else 2) * self.latent_channels + self.mask_channels

    @property
    def out_channels(self) -> int:
        """What the head writes for each cell: latents, and what it tells the refiner."""
        return self.latent_channels + (self.refiner.features if self.refiner else 0)
