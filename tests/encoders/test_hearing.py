import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from talkingmachines.audio.features import log_mel
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS
from talkingmachines.encoders.gestures import Gestures, GesturesConfig, Mixture
from talkingmachines.encoders.hearing import Hearing, HearingConfig
from talkingmachines.errors import ConfigError
from talkingmachines.media.audio import read_audio
from talkingmachines.presets import pocket
from talkingmachines.streaming.features import HearingStream
from talkingmachines.weights import load_features, weights_folder


def models() -> tuple[Hearing, Gestures]:
    torch.manual_seed(0)
    return Hearing(HearingConfig(16, 2, 8)).eval(), Gestures(GesturesConfig(3, 8, 8, 2)).eval()


def noise(frames: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, 640 * frames, generator=torch.Generator().manual_seed(seed))


def stream(seed: int = 0) -> HearingStream:
    return HearingStream(*models(), seed)


@pytest.mark.parametrize("split", [1, 5, 9])
def test_pieces_of_a_stream_are_the_whole(split: int) -> None:
    whole = stream().push(noise(13))
    pieces = stream()
    parts = [pieces.push(noise(13)[:, : 640 * split]), pieces.push(noise(13)[:, 640 * split :])]
    assert torch.equal(torch.cat(parts, 1), whole)
    assert whole.shape == (1, 13, 8 + 3)


def test_what_is_heard_is_that_of_the_log_mel_in_training() -> None:
    hearing, _ = models()
    streamed, _ = hearing.push(noise(9), hearing.start())
    torch.testing.assert_close(streamed, hearing.of_mel(log_mel(noise(9))))


def test_nothing_is_heard_before_it_sounds() -> None:
    changed = noise(12).clone()
    changed[:, 640 * 8 :] = 0
    assert torch.equal(stream().push(noise(12))[:, :8], stream().push(changed)[:, :8])


def test_the_seed_decides_on_gestures_alone() -> None:
    one, other, again = stream(1).push(noise(9)), stream(2).push(noise(9)), stream(1).push(noise(9))
    assert torch.equal(one, again)
    assert torch.equal(one[..., :8], other[..., :8]) and not torch.equal(one[..., 8:], other[..., 8:])


def test_after_a_cut_the_sound_begins_out_of_silence() -> None:
    cut, fresh = stream(), stream()
    cut.push(noise(3))
    cut.cut()
    heard = cut.push(torch.zeros(1, 640))
    assert cut._heard.frame.equal(fresh._hearing.start().frame) and heard.shape == (1, 1, 11)


def test_a_mixture_knows_how_likely_and_draws_accordingly() -> None:
    """Against torch's own mixture of normals."""
    torch.manual_seed(0)
    mixture = Mixture(torch.randn(5, 3, 2), torch.randn(5, 3, 2), torch.randn(5, 3, 2))
    normals = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixture.logits),
        torch.distributions.Normal(mixture.means, mixture.log_stds.exp()),
    )
    value = torch.randn(5, 3)
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(mixture.nll(value) + constant, -normals.log_prob(value))
    many = Mixture(*(part.expand(20_000, 5, 3, 2) for part in (mixture.logits, mixture.means, mixture.log_stds)))
    drawn = many.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), normals.mean, atol=0.15, rtol=0.05)
    torch.testing.assert_close(drawn.std(0), normals.stddev, atol=0.2, rtol=0.05)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_long_call_does_not_run_away() -> None:
    _, gestures = models()
    with torch.no_grad():
        gestures.out.weight.normal_(std=1)
    drawn, _ = gestures.draw(torch.randn(1, 500, 8), gestures.start(generator()), generator())
    assert drawn.abs().max() <= 12.001
    tracks = torch.randn(64, 200, 3).cumsum(1).sin()
    gestures.measure(tracks)
    drawn, state = gestures.draw(torch.randn(1, 500, 8), gestures.start(generator()), generator())
    assert (drawn[:, -1] + state.rest + state.first).abs().max() <= 1.001 * tracks.abs().max()
    assert drawn.std() > 0.1 and drawn.abs().max() <= 1.001 * (tracks.max() - tracks.min())
    assert drawn.diff(dim=1).abs().max() <= 1.21 * tracks.diff(dim=1).abs().max()


def test_gestures_that_go_too_far_are_scaled_down() -> None:
    _, gestures = models()
    heard = torch.randn(8, 40, 8)
    chance = generator()
    drawn, _ = gestures.draw(heard, gestures.start(chance, 8), chance)
    far = drawn.square().mean((0, 1)).sqrt()
    tracks = torch.zeros(8, 40, 3)
    tracks[:, 1:] = far * torch.tensor([0.5, 1.0, 3.0]) * (40 / 39) ** 0.5
    gestures.calibrate(heard, tracks + torch.tensor([1.0, 2.0, 3.0]), generator())
    torch.testing.assert_close(gestures.gain, torch.tensor([0.5, 1.0, 1.0]))
    chance = generator()
    again, _ = gestures.draw(heard, gestures.start(chance, 8), chance)
    torch.testing.assert_close(again, drawn * gestures.gain)


def test_a_face_that_rests_elsewhere_comes_back_to_the_picture() -> None:
    _, gestures = models()
    gestures.low.fill_(1)
    gestures.high.fill_(1)
    drawn, state = gestures.draw(torch.randn(1, 1500, 8), gestures.start(generator()), generator())
    drawn, _ = gestures.draw(torch.randn(1, 1500, 8), state, generator())
    torch.testing.assert_close(
        drawn[0, [0, -1]], torch.tensor([[1.0], [1 / math.e**2]]).expand(2, 3) / math.e**2, rtol=0.01, atol=0
    )


def test_a_call_begins_with_a_neutral_face_in_the_middle_of_a_motion_seen_in_training() -> None:
    _, gestures = models()
    tracks = 3 + torch.rand(64, 200, 3)
    near = torch.arange(64) * 3
    tracks[torch.arange(64), near] = 0.1 * torch.randn(64, 3)
    gestures.measure(tracks)
    state = gestures.start(generator(), 5)
    for last, before in zip(state.last, state.before, strict=True):
        index = int((tracks[torch.arange(64), near] - last).abs().sum(1).argmin())
        assert torch.equal(last, tracks[index, near[index]])
        torch.testing.assert_close(last - before, tracks[index, near[index] + 1] - last)
    assert len(state.last.unique(dim=0)) > 1


def test_shipped_gestures_do_not_run_away_within_minutes() -> None:
    """Heads once moved 40 times as fast in the fourth minute as in the first, with 250 blinks."""
    recordings = sorted(Path(str(files("talkingmachines") / "assets" / "recordings")).glob("*.flac"))
    sound = torch.from_numpy(np.concatenate([read_audio(path) for path in recordings]))
    minute = sound.repeat(60 * 16_000 // len(sound) + 1)[: 60 * 16_000]
    stream = load_features(weights_folder("pocket"), pocket())(0)
    heads = [index for index, name in enumerate(GESTURE_FIELDS) if name.startswith("head")]
    changes = []
    for _ in range(4):
        drawn = stream.push(minute[None])[0, :, -len(GESTURE_FIELDS) :]
        changes.append(float(drawn[:, heads].diff(dim=0).abs().mean()))
    assert min(changes) > 0.005 and max(changes) < 4 * changes[0], changes


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="positive"):
        HearingConfig(width=0)
    with pytest.raises(ConfigError, match="positive"):
        GesturesConfig(0, 8)
