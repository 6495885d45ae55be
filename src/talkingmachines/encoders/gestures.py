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
from talkingmachines.types import FPS

NOISE = 0.1
"""Most noise, in training, on the gestures that a frame goes on from: so that a drawn track that strays comes back."""

_OWN_NOISE = 0.01
"""How wrong a drawn track takes itself to be. With more it trembles and moves less, with less it may stray."""

_NARROWEST = -6.5
"""Least logarithm of a Gaussian's standard deviation."""

_RARE = 0.001
"""Share of the tracks that are cut off at each end, when it is measured how far and how fast gestures go."""

_HASTE = 1.2
"""How much faster than the fastest that is not rare."""

_STARTS = 64
"""How many faces are kept that a call may begin with."""

_UNMEASURED = 6.0
"""Limit of a model that has not been told how far gestures go."""

_REST = 30.0
"""Seconds in which a face comes back to that of the picture. Training tracks rest here and there, so drawn ones wander;
a call rests where its picture does."""

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
    """last, before: the two latest gestures [B, G]; first: those of the given picture [B, G]; rest: mean of those less
    these [B, G], lately; memory [1, B, D]."""

    last: Tensor
    before: Tensor
    first: Tensor
    rest: Tensor
    memory: Tensor | None = None


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
    starts [S, 2, G]: gestures of training tracks where they came nearest to a neutral face, as pictures mostly show it,
    and how they were moving there. A track that begins at rest stays near it: from the first frames on, the model takes
    it for one of a head that hardly moves.
    gain [G]: what drawn gestures are multiplied with, at most 1. What is not sure is drawn too widely; a head that nods
    too far, and rests elsewhere, is less like the picture.
    """

    low: Tensor
    high: Tensor
    fastest: Tensor
    starts: Tensor
    gain: Tensor

    def __init__(self, config: GesturesConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Sequential(nn.Linear(config.heard + 3 * config.count + 1, config.width), nn.GELU())
        self.memory = nn.GRU(config.width, config.width, batch_first=True)
        self.out = nn.Linear(2 * config.width, 3 * config.count * config.mixture)
        self.register_buffer("low", torch.full((config.count,), -_UNMEASURED))
        self.register_buffer("high", torch.full((config.count,), _UNMEASURED))
        self.register_buffer("fastest", torch.full((config.count,), 2 * _UNMEASURED))
        self.register_buffer("starts", torch.zeros(_STARTS, 2, config.count))
        self.register_buffer("gain", torch.ones(config.count))

    @torch.no_grad()
    def measure(self, tracks: Tensor) -> None:
        """Set low, high, fastest and starts by tracks [B, T, G], B >= S."""
        everywhere = tracks.flatten(0, 1)
        nearest = tracks[:_STARTS, :-1].square().sum(2).argmin(1)
        self.low.copy_(everywhere.quantile(_RARE, 0))
        self.high.copy_(everywhere.quantile(1 - _RARE, 0))
        self.fastest.copy_(_HASTE * tracks.diff(dim=1).abs().flatten(0, 1).quantile(1 - _RARE, 0))
        clips = torch.arange(_STARTS, device=tracks.device)
        first = tracks[clips, nearest]
        self.starts.copy_(torch.stack([first, tracks[clips, nearest + 1] - first], 1))

    @torch.no_grad()
    def calibrate(self, heard: Tensor, tracks: Tensor, generator: torch.Generator) -> None:
        """Set gain: tracks [B, T, G] and their speech [B, T, C] say how far from the picture gestures go."""
        self.gain.fill_(1)
        drawn, _ = self.draw(heard, self.start(generator, len(heard)), generator)
        far, may = drawn.square().mean((0, 1)), (tracks - tracks[:, :1]).square().mean((0, 1))
        self.gain.copy_((may / far).sqrt().clamp(max=1))

    def forward(
        self, heard: Tensor, last: Tensor, before: Tensor, memory: Tensor | None, noise: Tensor
    ) -> tuple[Mixture, Tensor]:
        """heard [B, T, C]; last, before [B, T, G] of the two frames before each -> each frame's mixture, the memory.

        noise: [B], standard deviation of what is wrong with last and before.
        """
        with torch.autocast(heard.device.type, enabled=False):
            speed = last - before
            wrong = (noise / NOISE)[:, None, None].expand(-1, heard.shape[1], 1)
            x = self.embed(torch.cat([heard.float(), last, speed, _SPEED * speed, wrong], 2))
            remembered, memory = self.memory(x, memory)
            out = self.out(torch.cat([x, remembered], 2)).unflatten(2, (3, self.config.count, self.config.mixture))
            logits, means, log_stds = out.unbind(2)
            # Half of the Gaussians go on from where the face is, as heads do; half lie where eyes come back to.
            going_on = (last + speed)[..., None] * (torch.arange(self.config.mixture, device=out.device) % 2)
            return Mixture(logits, going_on + means, log_stds.clamp(min=_NARROWEST)), memory

    def start(self, generator: torch.Generator, batch: int = 1) -> GesturesState:
        """The face of the given picture, as if in the middle of a motion."""
        chosen = torch.randint(len(self.starts), (batch,), generator=generator, device=generator.device)
        first, speed = self.starts[chosen].unbind(1)
        return GesturesState(first, first - speed, first, torch.zeros_like(first))

    def draw(self, heard: Tensor, state: GesturesState, generator: torch.Generator) -> tuple[Tensor, GesturesState]:
        """Gestures [B, T, G] of the next frames, less those of the given picture and where the face rested lately, and
        the state after them.

        heard: [B, T, C], of these frames.
        """
        last, before, rest, memory = state.last, state.before, state.rest, state.memory
        noise = last.new_full((len(last),), _OWN_NOISE)
        drawn = []
        for frame in heard.split(1, 1):
            mixture, memory = self(frame, last[:, None], before[:, None], memory, noise)
            wanted = mixture.sample(generator)[:, 0].clamp(self.low, self.high)
            before, last = last, last + (wanted - last).clamp(-self.fastest, self.fastest)
            changed = last - state.first
            rest = rest + (changed - rest) / (_REST * FPS)
            drawn.append(changed - rest)
        return self.gain * torch.stack(drawn, 1), GesturesState(last, before, state.first, rest, memory)
