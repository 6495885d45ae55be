import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from talkingmachines.errors import ConfigError, TrainingError
from talkingmachines.training.checkpoint import seed_begun
from talkingmachines.training.config import LoopConfig
from talkingmachines.training.loop import Trainer


class Numbers(Dataset[dict[str, Tensor]]):
    def __getitem__(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        return {"x": x, "y": x.cumsum(1)}


class Toy(nn.Module):
    """Has what the optimisers tell apart: a matrix inside `blocks`, and the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(8, 8)])
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.blocks[0](x)))


class ToyStage:
    name = "toy"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = Toy()
        self.batches = Numbers()
        self.poison = False

    def losses(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        noise = torch.randn(batch["x"].shape, generator=generator)
        loss = (self.model(batch["x"] + 0.1 * noise).float() - batch["y"]).square().mean()
        return {"loss": loss * (float("nan") if self.poison else 1.0)}

    def sample_grid(self, model: nn.Module) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)


class Silent:
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def add_image(self, tag: str, img_tensor: np.ndarray, global_step: int, dataformats: str) -> None: ...


def run(
    run_dir: Path, stop_at: int | None = None, resume: bool = False, steps: int = 12
) -> tuple[Trainer, list[float]]:
    trainer = Trainer(ToyStage(), LoopConfig(steps=steps, muon=True, warmup=4), run_dir, torch.device("cpu"))
    if resume:
        trainer.resume()
    losses: list[float] = []
    trainer.run(
        0,
        lambda step, progress, metrics: losses.append(metrics["loss"]),
        Silent(),
        lambda: trainer.step == stop_at,
    )
    return trainer, losses


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole, losses = run(tmp_path / "a")
    _, first = run(tmp_path / "b", stop_at=5)
    resumed, rest = run(tmp_path / "b", resume=True)
    assert len(first) == 5 and first + rest == losses
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    for name, tensor in whole.ema.model.state_dict().items():
        assert torch.equal(tensor, resumed.ema.model.state_dict()[name]), name


def test_it_learns(tmp_path: Path) -> None:
    _, losses = run(tmp_path, steps=1500)
    assert losses[-1] < 0.5 * losses[0]


def test_resume_without_a_checkpoint_or_with_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(tmp_path, resume=True)
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(TrainingError, match="damaged"):
        run(tmp_path, resume=True)
    for foreign in ({"weights": 1}, [1]):
        torch.save(foreign, tmp_path / "state.pt")
        with pytest.raises(TrainingError, match="not written by"):
            run(tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, stop_at=5)
    before = (tmp_path / "state.pt").read_bytes()
    trainer = Trainer(ToyStage(), LoopConfig(steps=12, muon=True, warmup=4), tmp_path, torch.device("cpu"))
    trainer.resume()
    trainer.stage.poison = True  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="step 5 is not finite"):
        trainer.run(0, lambda *_: None, Silent(), lambda: False)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_what_is_not_trained_must_be_what_it_was(tmp_path: Path) -> None:
    def trainer(bias: float) -> Trainer:
        stage = ToyStage()
        torch.nn.init.constant_(stage.model.requires_grad_(False).out.bias, bias)
        stage.model.blocks.requires_grad_(True)
        return Trainer(stage, LoopConfig(steps=3), tmp_path, torch.device("cpu"))

    trainer(1.0).run(0, lambda *_: None, Silent(), lambda: False)
    trainer(1.0).resume()
    with pytest.raises(TrainingError, match="gone on since"):
        trainer(2.0).resume()


def test_what_it_is_trained_beside_must_be_what_it_was(tmp_path: Path) -> None:
    def trainer(**beside: str) -> Trainer:
        return Trainer(ToyStage(), LoopConfig(steps=1), tmp_path, torch.device("cpu"), beside)

    trainer(student="one").run(0, lambda *_: None, Silent(), lambda: False)
    trainer(student="one").resume()
    with pytest.raises(TrainingError, match="with another student than the run has"):
        trainer(student="two").resume()
    state = torch.load(tmp_path / "state.pt")
    del state["beside"]
    torch.save(state, tmp_path / "state.pt")
    trainer(student="two").resume()


def test_it_goes_on_with_its_seed(tmp_path: Path) -> None:
    """Checkpoints of before do not say it."""

    def trainer(seed: int) -> Trainer:
        return Trainer(ToyStage(), LoopConfig(steps=1, seed=seed), tmp_path, torch.device("cpu"))

    assert seed_begun(tmp_path) is None
    trainer(7).run(0, lambda *_: None, Silent(), lambda: False)
    trainer(7).resume()
    assert seed_begun(tmp_path) == 7
    with pytest.raises(TrainingError, match="begun with --seed 7, not 0"):
        trainer(0).resume()
    state = torch.load(tmp_path / "state.pt")
    del state["seed"]
    torch.save(state, tmp_path / "state.pt")
    trainer(0).resume()
    assert seed_begun(tmp_path) is None


def test_a_full_disk_leaves_the_checkpoint(tmp_path: Path) -> None:
    """The system itself refuses to write on, in the middle of the file."""
    run(tmp_path, stop_at=5)
    before = (tmp_path / "state.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(TrainingError, match="cannot be written"):
            run(tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == before


def test_rate_warms_up_holds_and_falls() -> None:
    config = LoopConfig(steps=100, warmup=10, decay=0.5)
    rates = [config.rate(step, config.progress(step, 0.0)) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[100] == pytest.approx(0.02)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"steps": 1, "minutes": 1.0}, {"steps": -1}, *({"minutes": float(end)} for end in ("-2", "nan", "inf"))],
)
def test_config_wants_one_positive_end(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LoopConfig(**arguments)  # type: ignore[arg-type]
