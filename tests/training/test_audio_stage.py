import torch

from talkingmachines.audio.features import log_mel
from talkingmachines.dit.config import AudioConfig
from talkingmachines.encoders.gestures import Gestures, GesturesConfig
from talkingmachines.encoders.hearing import Hearing, HearingConfig
from talkingmachines.training.audio import AudioStage, MouthReader
from talkingmachines.training.gestures import GesturesStage

HEARING = HearingConfig(24, 1, 8)
FRAMES = 13


def batch(seed: int) -> dict[str, torch.Tensor]:
    """A mouth that opens as far as a hum is loud, shut or not; a head that goes on as it goes."""
    generator = torch.Generator().manual_seed(seed)
    loud = torch.rand(8, FRAMES, generator=generator)
    hum = torch.sin(torch.arange(640 * FRAMES) * 0.3) * 10 ** (loud.repeat_interleave(640, 1) * 2 - 3)
    gestures = torch.randn(8, 1, 2, generator=generator) * torch.linspace(0, 1, FRAMES)[:, None]
    mouth = torch.stack([loud, (loud < 0.5).float()], 2)
    return {"mel": log_mel(hum), "mouth": mouth, "bilabial": loud < 0.1, "gestures": gestures}


def learn(stage: AudioStage | GesturesStage, steps: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    optimizer = torch.optim.AdamW(stage.model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    before = stage.losses(batch(1), generator)
    for step in range(steps):
        optimizer.zero_grad()
        stage.losses(batch(step + 2), generator)["loss"].backward()
        optimizer.step()
    return before, stage.losses(batch(1), generator)


def test_it_learns_to_read_the_mouth_and_lets_gestures_through() -> None:
    torch.manual_seed(0)
    audio = AudioConfig(HEARING.dim + 2, window=5, hidden=64, context_tokens=2, width=16)
    stage = AudioStage(MouthReader(HEARING, audio, 2), [batch(0)], chunk=2)  # type: ignore[arg-type]
    before, after = learn(stage, 300)
    assert after["mouth"] < 0.3 * before["mouth"] and after["r"] > 0.9
    assert after["gestures"] < 0.3 * before["gestures"]
    assert stage.sample_grid(stage.model).shape == (4 * 2 * 8, 12 * 4, 3)


def test_lips_that_shut_count_more() -> None:
    torch.manual_seed(0)
    audio = AudioConfig(HEARING.dim + 2, window=5, hidden=64, context_tokens=2, width=16)
    stage = AudioStage(MouthReader(HEARING, audio, 2), [batch(0)], chunk=2)  # type: ignore[arg-type]
    with torch.no_grad():
        stage.model.out.weight.zero_()
        stage.model.out.bias.zero_()  # reads a mouth that is always shut
    some, none = ({**batch(1), "bilabial": flags} for flags in (batch(1)["bilabial"], torch.zeros(8, FRAMES).bool()))
    right, same = (stage.losses(b, torch.Generator().manual_seed(0))["mouth"] for b in (some, none))
    assert right < same, "shut where lips are shut: more of its frames are right"


def test_gestures_learn_how_a_head_goes_on() -> None:
    torch.manual_seed(0)
    hearing = Hearing(HEARING).eval()
    stage = GesturesStage(Gestures(GesturesConfig(2, HEARING.dim, 24, 2)), hearing, [batch(0)])  # type: ignore[arg-type]
    weights = [parameter.clone() for parameter in hearing.parameters()]
    before, after = learn(stage, 300)
    assert after["loss"] < before["loss"] - 0.5
    assert all(torch.equal(old, new) for old, new in zip(weights, hearing.parameters(), strict=True))
    assert stage.sample_grid(stage.model).shape == (4 * 4 * 8, FRAMES * 2, 3)
