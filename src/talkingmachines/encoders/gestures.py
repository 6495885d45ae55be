"""What a character does beside speaking: head, gaze, blinks, brows, smile and breath, drawn frame by frame.

Speech says little of it, and for a small denoiser of few steps the noise says nothing either: a nod would have to be
decided where a latent is 95% noise. So a small autoregressive model draws it, and the transformer is told.

Each channel's next value is a mixture of Gaussians (Graves 2013, "Generating sequences with recurrent neural
networks", section 4).
B batch, T video frames, G gestures, M Gaussians, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from talkingmachines.errors import ConfigError

_NARROWEST = -5.0
"""Least logarithm of a Gaussian's standard deviation."""

_RARE = 0.001
"""Share of the tracks that are cut off at each end, when it is measured how far and how fast gestures go."""

_HASTE = 1.2
"""How much faster than the fastest that is not rare."""

_UNMEASURED = 6.0
"""Limit of a model that has not been told how far gestures go."""

_SPEED = 8.0
"""What the change of a smooth motion from frame to frame is multiplied with, to be seen beside the jump of a blink."""


@dataclass(frozen=True)
class GesturesConfig:
    """count: channels; heard: of the speech features; width: of the recurrent layer; mixture: Gaussians a channel."""

    count: int
    heard: int
    width: int = 192
    mixture: int = 6

    def __post_init__(self) -> None:
        if min(self.count, self.heard, self.width, self.mixture) < 1:
            raise ConfigError(f"GesturesConfig must have positive numbers, got {self}")


@dataclass(frozen=True)
class GesturesState:
    """last, before: the two latest gestures [B, G]; memory [1, B, D]."""

    last: Tensor
    before: Tensor
    memory: Tensor


@dataclass(frozen=True)
class Mixture:
    """logits, means, log_stds: [..., G, M]."""

    logits: Tensor
    means: Tensor
    log_stds: Tensor

    def nll(self, gestures: Tensor) -> Tensor:
        """Negative log-likelihood of gestures [..., G], the same shape, in nats without the constant."""
        error = (gestures[..., None] - self.means) / self.log_stds.exp()
        return -torch.logsumexp(self.logits.log_softmax(-1) - self.log_stds - 0.5 * error.square(), -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """[..., G]."""
        chosen = torch.multinomial(self.logits.softmax(-1).flatten(0, -2), 1, generator=generator)
        chosen = chosen.view(*self.means.shape[:-1], 1)
        mean, std = self.means.gather(-1, chosen)[..., 0], self.log_stds.gather(-1, chosen)[..., 0].exp()
        return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)


class Gestures(nn.Module):
    """p(gestures of a frame | all earlier ones, what was heard up to it). 0 is a neutral face, 1 a usual change.

    low, high, fastest [G]: how far, and how far in a frame, gestures went in training. Drawn ones go no further: each
    goes on from the one before, and after a minute or two nothing would be as it has been seen.
    """

    low: Tensor
    high: Tensor
    fastest: Tensor

    def __init__(self, config: GesturesConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Sequential(nn.Linear(config.heard + 3 * config.count, config.width), nn.GELU())
        self.memory = nn.GRU(config.width, config.width, batch_first=True)
        self.out = nn.Linear(2 * config.width, 3 * config.count * config.mixture)
        self.register_buffer("low", torch.full((config.count,), -_UNMEASURED))
        self.register_buffer("high", torch.full((config.count,), _UNMEASURED))
        self.register_buffer("fastest", torch.full((config.count,), 2 * _UNMEASURED))

    @torch.no_grad()
    def keep_within(self, tracks: Tensor) -> None:
        """Measure low, high and fastest on tracks [B, T, G]."""
        everywhere = tracks.flatten(0, 1)
        self.low.copy_(everywhere.quantile(_RARE, 0))
        self.high.copy_(everywhere.quantile(1 - _RARE, 0))
        self.fastest.copy_(_HASTE * tracks.diff(dim=1).abs().flatten(0, 1).quantile(1 - _RARE, 0))

    def forward(self, heard: Tensor, last: Tensor, before: Tensor, memory: Tensor) -> tuple[Mixture, Tensor]:
        """heard [B, T, C]; last, before [B, T, G] of the two frames before each -> each frame's mixture, the memory."""
        with torch.autocast(heard.device.type, enabled=False):
            speed = last - before
            x = self.embed(torch.cat([heard.float(), last, speed, _SPEED * speed], 2))
            remembered, memory = self.memory(x, memory)
            out = self.out(torch.cat([x, remembered], 2)).unflatten(2, (3, self.config.count, self.config.mixture))
            logits, means, log_stds = out.unbind(2)
            # Half of the Gaussians go on from where the face is, as heads do; half lie where eyes come back to.
            going_on = (last + speed)[..., None] * (torch.arange(self.config.mixture, device=out.device) % 2)
            return Mixture(logits, going_on + means, log_stds.clamp(min=_NARROWEST)), memory

    def start(self, batch: int = 1) -> GesturesState:
        """The neutral face, at rest."""
        device = self.out.weight.device
        neutral = torch.zeros(batch, self.config.count, device=device)
        return GesturesState(neutral, neutral, torch.zeros(1, batch, self.config.width, device=device))

    def draw(self, heard: Tensor, state: GesturesState, generator: torch.Generator) -> tuple[Tensor, GesturesState]:
        """Gestures [B, T, G] of the next frames, of which heard [B, T, C] is known, and the state after them."""
        last, before, memory = state.last, state.before, state.memory
        drawn = []
        for frame in heard.split(1, 1):
            mixture, memory = self(frame, last[:, None], before[:, None], memory)
            wanted = mixture.sample(generator)[:, 0].clamp(self.low, self.high)
            before, last = last, last + (wanted - last).clamp(-self.fastest, self.fastest)
            drawn.append(last)
        return torch.stack(drawn, 1), GesturesState(last, before, memory)
