import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from talkingmachines.cli.eval import heldout_speech
from talkingmachines.cli.main import main
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import Clip
from talkingmachines.data.synthetic.draw import draw_clip
from talkingmachines.data.synthetic.looks import draw_clip as draw_any
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.data.synthetic.toon import Toon
from talkingmachines.errors import ConfigError
from talkingmachines.evaluation.calls import call_minute
from talkingmachines.evaluation.clips import CHARACTERS, LISTENING, EvalConfig, listening_clips, speaking_clips
from talkingmachines.evaluation.elsewhere import SHAPES, elsewhere
from talkingmachines.evaluation.evaluate import evaluate, evaluate_vae, strip
from talkingmachines.evaluation.longrun import Meter
from talkingmachines.evaluation.metrics import closures
from talkingmachines.evaluation.scores import CLOSED_THRESHOLD
from talkingmachines.framing.cut import Framing
from talkingmachines.weights import load_finder

pytest.importorskip("skia")

MakeBank = Callable[[str], SpeechBank]
SMALL = EvalConfig(
    vae_clips=2, vae_frames=9, speaking_clips=2, speaking_frames=49, listening_clips=2, listening_frames=45
)
PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


class NoisyVAE:
    """Rebuilds all but for noise of so many levels of 255."""

    def __init__(self, level: float) -> None:
        self.level = level

    def encode(self, video: Tensor) -> Tensor:
        return video

    def decode(self, latents: Tensor) -> Tensor:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        return latents + noise * (self.level / 127.5)


VIEW = (8, 0, 200, 192)


class Actor:
    """Plays back the drawn truth of the clip whose sound it is given, changed by `fault`."""

    size, vae, device = 256, NoisyVAE(0), torch.device("cpu")
    preset = SimpleNamespace(name="actor")

    def __init__(self, bank: SpeechBank, fault: Callable[[np.ndarray], np.ndarray]) -> None:
        self.fault = fault
        clips = speaking_clips(bank, SMALL) + listening_clips(bank, SMALL)
        self.known = {clip.samples.tobytes(): clip for clip in clips}
        self.seeds: list[int] = []

    def framing(self, image: np.ndarray) -> Framing:
        """Of a picture with the face elsewhere a part is shown."""
        nothing = np.zeros((256, 256, 3), np.uint8)
        return Framing(nothing, nothing, VIEW if image.shape[:2] in SHAPES else None)

    def generate(self, image: np.ndarray, speech: np.ndarray, *, seed: int) -> np.ndarray:
        self.seeds.append(seed)
        clip = self.known[speech.tobytes()]
        for toon in map(Toon, range(SMALL.speaking_clips)):
            if np.array_equal(draw_any(toon, clip.track[:1])[0], image):
                return self.fault(draw_any(toon, clip.track))
        frames = draw_clip(sample_character(clip.character_seed), clip.track)
        made = self.fault(frames)
        if image.shape[:2] in SHAPES:
            return np.stack([Image.fromarray(frame).crop(VIEW).resize((256, 256)) for frame in made])
        assert np.array_equal(frames[0], image)
        return made


@pytest.fixture(scope="module")
def bank(make_bank: MakeBank) -> SpeechBank:
    return make_bank("heldout")


def scores(bank: SpeechBank, fault: Callable[[np.ndarray], np.ndarray], toons: int = 0) -> dict[str, Any]:
    config = replace(SMALL, elsewhere_clips=0, toon_clips=toons)
    return evaluate(Actor(bank, fault), bank, clips=config, recordings=())


def by_chance(clips: list[Clip]) -> float:
    """How often a closure of a clip, put at any other moment of its clip's speech, finds the drawn mouth shut."""
    found = []
    for closure in clips:
        for start, end in closures(closure.bilabial):
            here = []
            for clip in clips:
                opening = clip.track[:, POSE_FIELDS.index("mouth_open")]
                for at in range(1, clip.num_frames - (end - start)):
                    if not clip.closed[at : at + end - start].any():
                        here.append(opening[at - 1 : at + end - start + 1].min() < CLOSED_THRESHOLD)
            found.append(np.mean(here))
    return float(np.mean(found))


def test_the_truth_scores_full_marks(bank: SpeechBank) -> None:
    counted: list[tuple[int, int]] = []
    shown: dict[str, tuple[int, ...]] = {}
    actor = Actor(bank, lambda frames: frames)
    figures = evaluate(
        actor,
        bank,
        lambda done, total: counted.append((done, total)),
        SMALL,
        recordings=(),
        look=lambda name, true, made: shown.update({name: made.shape}),
    )
    lips, motion = figures["lips"], figures["motion"]
    assert lips["r"] > 0.97 and lips["lag_frames"] == 0 and lips["reader_r"] == pytest.approx(lips["r"], abs=0.02)
    assert lips["closed"] == min(lips["closed_silence"], lips["closed_bilabial"]) > 0.9
    assert lips["closed_bilabial_cases"] > 3 and lips["clips"] == 2 and lips["frames"] == 2 * 49
    assert lips["real_r"] is None and lips["real_clips"] == 0
    identity, frames = figures["identity"], 2 * 49 + 2 * 45
    assert (identity["top1"], identity["frames"], identity["characters"]) == (1.0, frames, 64)
    assert 0.6 < identity["likeness"] == identity["drawn_likeness"] < 1
    # At random the many shut moments of such speech would pass, too, but for the given picture's share.
    assert lips["closed_by_chance"] == pytest.approx(by_chance(speaking_clips(bank, SMALL)), abs=0.1)
    assert (
        motion["listening"] == motion["energy"] == pytest.approx(1)
        and motion["still_clips"] == 0
        and motion["clips"] == 2
    )
    assert motion["blinks_per_minute"] == pytest.approx(motion["truth_blinks_per_minute"], rel=0.35)
    background = figures["background"]
    assert background["sharpness"] == pytest.approx(1) and background["sharpness_min"] == pytest.approx(1)
    assert background["psnr_db"] > 40 and background["clips"] == 4
    assert figures["elsewhere"]["r"] == pytest.approx(lips["r"], abs=0.01) and figures["elsewhere"]["clips"] == 2
    toons = figures["toons"]
    assert toons["r"] == pytest.approx(toons["reader_r"]) and toons["reader_r"] > 0.85 and toons["clips"] == 2
    assert toons["opening"] == pytest.approx(1)
    assert actor.seeds == [0, 1, LISTENING, LISTENING + 1, 0, 1, 0, 1]  # dice of its own for each clip
    assert counted == [(i + 1, 10) for i in range(10)]
    assert len(shown) == 6 and shown["toon-01"] == (49, 256, 256, 3) and shown["listening-01"] == (45, 256, 256, 3)


def test_a_late_video_is_found_out(bank: SpeechBank) -> None:
    lips = scores(bank, lambda frames: np.concatenate([frames[:1]] * 3 + [frames[:-3]]))["lips"]
    assert lips["lag_frames"] == 3 and lips["r"] < 0.6 and lips["r_by_lag"][3] > 0.95


def test_a_still_picture_is_found_out(bank: SpeechBank) -> None:
    figures = scores(bank, lambda frames: np.repeat(frames[:1], len(frames), 0), toons=2)
    assert abs(figures["toons"]["r"]) < 0.3 and figures["toons"]["opening"] < 0.05
    assert figures["motion"]["still_clips"] == 2 and figures["motion"]["listening"] < 0.02
    assert abs(figures["lips"]["r"]) < 0.2 and figures["motion"]["blinks_per_minute"] == 0


def test_another_character_and_a_washed_out_room_are_found_out(bank: SpeechBank) -> None:
    stranger = draw_clip(sample_character(500), speaking_clips(bank, SMALL)[0].track[:4]) // 4 + 90
    figures = scores(bank, lambda frames: np.resize(stranger, frames.shape))
    assert figures["identity"]["top1"] < 0.2 and figures["identity"]["likeness"] < 0.5
    assert figures["background"]["sharpness"] < 0.8 and figures["background"]["psnr_db"] < 20


def test_autoencoder_alone(bank: SpeechBank) -> None:
    figures = evaluate_vae(NoisyVAE(4), bank, clips=SMALL)
    # Noise of 4 levels: 20 log10(255 / 4) = 36.1 dB, and a bit more where black and white cut it off.
    assert 36.0 < figures["psnr_db"] < 37.0 and figures["psnr_min_db"] <= figures["psnr_db"]
    assert figures["border_ratio"] == pytest.approx(1, abs=0.02) and figures["clips"] == 2
    assert figures["edge_ratio"] == pytest.approx(1, abs=0.05)


def test_clips_are_heldout_seeded_and_of_different_characters(bank: SpeechBank) -> None:
    once, again = speaking_clips(bank, SMALL), speaking_clips(bank, SMALL)
    assert all(np.array_equal(a.track, b.track) for a, b in zip(once, again, strict=True))
    listeners = listening_clips(bank, SMALL)
    seeds = [clip.character_seed for clip in once + listeners]
    assert len(set(seeds)) == 4 and max(seeds) < CHARACTERS
    assert all(clip.speaking.mean() >= 0.6 for clip in once) and not any(clip.speaking.any() for clip in listeners)


def test_a_training_bank_and_impossible_sizes_are_refused(make_bank: MakeBank) -> None:
    with pytest.raises(ConfigError, match="heldout"):
        evaluate_vae(NoisyVAE(4), make_bank("train"), clips=SMALL)
    with pytest.raises(ConfigError, match="1 \\+ 4n"):
        EvalConfig(vae_frames=12)
    with pytest.raises(ConfigError, match="at least 9 frames"):
        EvalConfig(speaking_frames=3)


def test_a_character_elsewhere_has_all_of_its_face_in_the_picture() -> None:
    rng = np.random.default_rng(0)
    pictures = [elsewhere(sample_character(seed), Pose(), rng) for seed in range(12)]
    assert {picture.shape[:2] for picture in pictures} == set(SHAPES)
    assert all(found is not None for found in map(load_finder().find, pictures))
    again = elsewhere(sample_character(0), Pose(), np.random.default_rng(0))
    assert np.array_equal(again, pictures[0])


def test_strip_puts_truth_above() -> None:
    true, made = np.zeros((9, 64, 64, 3), np.uint8), np.full((9, 64, 64, 3), 255, np.uint8)
    sheet = strip(true, made, every=4, size=16)
    assert sheet.shape == (32, 48, 3) and sheet[:16].max() == 0 and sheet[16:].min() == 255
    assert strip(None, made).shape == (128, 3 * 128, 3)


def test_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--preset", "giant"]) == 2
    assert main(["eval", "--preset", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "giant" in errors[0] and "no student weights" in errors[1]


FIGURES = {
    "vae": {"psnr_db": 35.0, "border_ratio": 0.9, "edge_ratio": 1.0, "clips": 1},
    "lips": {"r": 0.9, "lag_frames": 0, "closed": 0.95, "real_r": None, "clips": 20, "real_clips": 0},
    "elsewhere": {"r": 0.8, "clips": 12},
    "toons": {"r": 0.7, "clips": 12},
    "identity": {"top1": 1.0, "likeness": 0.8, "frames": 9, "characters": 64},
    "background": {"sharpness": 1.0, "psnr_db": 40.0, "clips": 1},
    "motion": {"listening": 1.0, "energy": 1.0, "blinks_per_minute": 15.0, "still_clips": 0, "clips": 1},
}


def measured(
    model: object, speech: SpeechBank, update: object, config: EvalConfig, *, reader: object, look: Any
) -> dict[str, Any]:
    assert speech.split == "heldout" and len(speech) == 6
    if look:
        look("speaking-00", np.zeros((9, 64, 64, 3), np.uint8), np.zeros((9, 64, 64, 3), np.uint8))
    return FIGURES | {"lips": FIGURES["lips"] | {"clips": config.speaking_clips}}


@pytest.fixture
def command(tmp_path: Path, make_bank: MakeBank, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The start of a command line that measures nothing in earnest."""
    bank = tmp_path / "bank.npz"
    make_bank("heldout").save(bank)

    def student(preset: str, *, device: str, steps: int | None) -> SimpleNamespace:
        chunk = SimpleNamespace(steps=steps or 2)
        return SimpleNamespace(preset=SimpleNamespace(name=Actor.preset.name, chunk=chunk))

    monkeypatch.setattr("talkingmachines.avatar.load", student)
    monkeypatch.setattr(
        "talkingmachines.teacher.load_teacher", lambda preset, *, device: SimpleNamespace(preset=Actor.preset)
    )
    monkeypatch.setattr("talkingmachines.evaluation.evaluate.evaluate", measured)
    return ["eval", "--bank", str(bank)]


def test_heldout_speech_is_kept_until_it_is_made_otherwise(
    tmp_path: Path, make_bank: MakeBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SpeechBank] = []
    monkeypatch.setattr("talkingmachines.cli.eval._cache_folder", lambda: tmp_path)
    monkeypatch.setattr(SpeechBank, "build", lambda *_: made.append(make_bank("heldout")) or made[-1])
    for origin, count in (("one", 1), ("one", 1), ("other", 2)):
        monkeypatch.setattr("talkingmachines.data.synthetic.bank.origin", lambda origin=origin: origin)
        assert len(heldout_speech(None)) == len(made[0]) and len(made) == count


def test_command_prints_figures_and_writes_strips(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"preset": "actor", "steps": 2, **FIGURES}
    assert json.loads((tmp_path / "out" / "eval.json").read_text()) == printed
    for more, said in ((["--steps", "1"], {"steps": 1}), (["--teacher"], {})):
        assert main([*command, *more, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"preset": "actor", **said, **FIGURES}
    assert (tmp_path / "out" / "speaking-00.png").is_file()
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "35.0 dB" in table and "not measured" in table and "95.0%" in table


def test_command_measures_a_call_and_compares_when_asked(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    ratios = {"lips_r": 0.97, "identity": 1.0, "top1": 1.0, "motion": 0.9, "clips": 2, "steps": 30}

    def called(avatar: object, speech: SpeechBank, update: object, config: Any, *, reader: object, look: Any) -> object:
        look(187, np.zeros((64, 64, 3), np.uint8))
        gauge = Meter(PICTURE, PICTURE[None], 0, reader, 3)  # type: ignore[arg-type]
        gauge.add(np.repeat(PICTURE[None], 200, 0))
        gauge.end_minute(call_minute(speech, 0))
        return gauge.figures() | {"minutes": config.minutes}

    monkeypatch.setattr("talkingmachines.evaluation.longrun.long_run", called)

    def compared(
        figures: object, teacher: object, speech: object, update: object, config: EvalConfig, **_: Any
    ) -> object:
        return ratios | {"clips": config.speaking_clips}

    monkeypatch.setattr("talkingmachines.evaluation.against.against_teacher", compared)
    page = tmp_path / "new" / "report.html"
    assert main([*command, "--clips", "2", "--minutes", "7", "--against-teacher", "--report", str(page), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["lips"]["clips"] == 2
    assert printed["against_teacher"] == ratios and printed["long_run"]["minutes"] == 7
    assert "A call of 7 minutes" in page.read_text() and "data:image/jpeg" in page.read_text()


def test_command_refuses_what_cannot_be(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--teacher", "--minutes", "1"]) == 2
    assert main([*command, "--report", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "leave --teacher out" in errors and "this is a folder" in errors
    for other in ("--teacher", "--stamp"):
        assert main([*command, "--steps", "1", other]) == 2
        assert f"leave out --steps, or {other}" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--minutes", "-1"]) == 2
