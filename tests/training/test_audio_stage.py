import torch

from talkingmachines.dit.config import AudioConfig
from talkingmachines.training.audio import AudioStage, MouthReader


def batch(seed: int) -> dict[str, torch.Tensor]:
    """A mouth that opens as far as the first feature of the same frame says."""
    features = torch.rand(8, 13, 4, generator=torch.Generator().manual_seed(seed))
    return {"features": features, "mouth": features[..., :2]}


def test_it_learns_to_read_the_mouth_and_reports_r() -> None:
    torch.manual_seed(0)
    config = AudioConfig(feature_dim=4, window=5, hidden=64, context_tokens=2, width=16)
    stage = AudioStage(MouthReader(config, 2), [batch(0)])  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(stage.model.parameters(), lr=3e-3)
    generator = torch.Generator()
    before = stage.losses(batch(1), generator)
    for step in range(400):
        optimizer.zero_grad()
        stage.losses(batch(step + 2), generator)["loss"].backward()
        optimizer.step()
    after = stage.losses(batch(1), generator)
    assert after["loss"] < 0.3 * before["loss"] and after["r"] > 0.9
    grid = stage.sample_grid(stage.model)
    assert grid.shape == (4 * 2 * 8, 12 * 4, 3)
