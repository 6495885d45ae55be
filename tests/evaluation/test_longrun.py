import json
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from talkingmachines.avatar import Avatar
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.character import sample_character
from talkingmachines.data.synthetic.clip import Clip
from talkingmachines.data.synthetic.draw import draw, draw_clip
from talkingmachines.data.synthetic.pose import Pose
from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError
from talkingmachines.evaluation.against import against_teacher, compare
from talkingmachines.evaluation.calls import MINUTE, TURNS, call_minute, caller
from talkingmachines.evaluation.clips import EvalConfig, portraits
from talkingmachines.evaluation.longrun import LongRunConfig, Meter, long_run, measure
from talkingmachines.evaluation.random_avatar import random_features
from talkingmachines.evaluation.reader import READ_FIELDS, load_reader
from talkingmachines.framing.cut import fit_centre
from talkingmachines.presets import tiny
from talkingmachines.types import FPS, SAMPLES_PER_FRAME
from talkingmachines.vae.model import CausalVAE

pytest.importorskip("skia")

MakeBank = Callable[[str], SpeechBank]
FACES = np.random.default_rng(0).choice(np.array([28, 228], np.uint8), (3, 24, 24, 3))
"""Of 100 less and 100 more than 128, so that a part less of it is a whole number again."""
CHUNK = 3


class Corner:
    """Reads every field from the first pixel: what a stream puts there is what it shows."""

    def read(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        return dict.fromkeys(READ_FIELDS, frames[:, 0, 0, 0].astype(np.float32) / 255)


@pytest.fixture(scope="module")
def bank(make_bank: MakeBank) -> SpeechBank:
    return make_bank("heldout")


@pytest.fixture(scope="module")
def minutes(bank: SpeechBank) -> list[Clip]:
    return [call_minute(bank, index) for index in range(4)]


def meter() -> Meter:
    return Meter(FACES[1], FACES, 1, Corner(), CHUNK)


def measured(minutes: list[Clip], picture: Callable[[int], np.ndarray], size: int = 12) -> dict[str, object]:
    """The figures of a call whose frame t is picture(t), coming in blocks of `size`."""
    total = MINUTE * len(minutes)
    blocks = (np.stack([picture(t) for t in range(s, min(s + size, total))]) for s in range(0, total, size))
    gauge = meter()
    measure(blocks, minutes, gauge)
    return gauge.figures()


def test_lost_sharpness_is_a_slope(minutes: list[Clip]) -> None:
    def fading(t: int) -> np.ndarray:
        return np.rint(128 + (1 - 0.01 * (t // MINUTE)) * (FACES[1] - 128.0)).astype(np.uint8)

    figures = measured(minutes, fading, 100)
    assert figures["minutes"] == 4 and figures["frames"] == 4 * MINUTE
    assert figures["series"]["sharpness"] == pytest.approx([1, 0.99, 0.98, 0.97], abs=1e-3)
    assert figures["slopes"]["sharpness"] == pytest.approx(-0.01, abs=5e-4)
    assert figures["drift_sharpness"] == pytest.approx(-0.03, abs=1e-3)
    assert figures["drift_colour"] == pytest.approx(-0.03, abs=2e-3), "the spread of the channels fades with it"
    assert figures["drift_identity"] == pytest.approx(0, abs=0.01) and figures["means"]["top1"] == 1


def test_another_colour_and_another_face_are_drift(minutes: list[Clip]) -> None:
    def reddening(t: int) -> np.ndarray:
        return FACES[1] + np.array([6 * (t // MINUTE), 0, 0], np.uint8)

    figures = measured(minutes, reddening)
    first = FACES[1, ..., 0].mean()
    assert figures["drift_colour"] == pytest.approx(18 / first) and figures["slopes"]["red"] == pytest.approx(6)
    assert figures["series"]["colour_distance"] == pytest.approx([0, 2, 4, 6], abs=0.2)
    assert abs(figures["drift_sharpness"]) < 1e-6 and figures["slopes"]["green"] == pytest.approx(0, abs=1e-9)
    swapped = measured(minutes, lambda t: FACES[1] if t < 3 * MINUTE else FACES[2])
    assert swapped["series"]["top1"] == [1, 1, 1, 0] and swapped["drift_identity"] < -0.5


@pytest.mark.parametrize(("first_pop", "ratio"), [(9, 10.0), (10, 0.75)])
def test_pops_are_found_where_chunks_meet(minutes: list[Clip], first_pop: int, ratio: float) -> None:
    # Every frame changes by 1; from a pop to the next, all is 3 brighter than before or after.
    def popping(t: int) -> np.ndarray:
        return FACES[1] + np.uint8(t % 2 + 3 * ((t - first_pop) // 12 % 2))

    figures = measured(minutes[:2], popping, 7)
    # At 9, 21, ...: changes of 1 + 3 and 1 - 3 at borders, (16 + 4) / 2, and 1 inside. At 10, 22, ...: 1 at borders,
    # and inside one of eleven changes is -1 + 3 or -1 - 3.
    wanted = ratio if first_pop == 9 else 1 / ((10 + 10) / 11)
    assert figures["border_ratio"] == pytest.approx(wanted, rel=0.01)
    assert figures["series"]["border_ratio"] == pytest.approx([wanted] * 2, rel=0.02)


def test_a_still_picture_is_found_out(minutes: list[Clip]) -> None:
    figures = measured(minutes[:2], lambda t: FACES[1])
    assert figures["still_minutes"] == 2 and figures["border_ratio"] == 0
    assert figures["means"]["motion"] < 1e-9 and figures["means"]["lips_r"] == 0 and figures["means"]["blinks"] == 0
    assert figures["end_over_start"]["blinks"] is None and figures["end_over_start"]["sharpness"] == 1
    assert measured(minutes[:1], lambda t: FACES[1])["slopes"]["sharpness"] is None


def test_lips_are_compared_while_speaking(minutes: list[Clip]) -> None:
    opening = np.concatenate([clip.track[:, 0] for clip in minutes])

    def speaking(t: int, late: int = 0) -> np.ndarray:
        frame = FACES[1].copy()
        frame[0, 0] = round(255 * float(opening[max(t - late, 0)]))
        return frame

    true = measured(minutes[:2], speaking)
    assert true["means"]["lips_r"] > 0.99 and true["means"]["shut_in_silence"] == 1 and true["still_minutes"] == 0
    assert true["means"]["blinks"] > 5, "the corner is read as an eye, too"
    assert measured(minutes[:2], lambda t: speaking(t, 3))["means"]["lips_r"] < 0.7


def test_a_call_is_measured_as_it_comes(minutes: list[Clip]) -> None:
    gauge, alive, most = meter(), [], 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal most
        for count in range(2 * MINUTE // 12):
            most = max(most, sum(block() is not None for block in alive))
            assert gauge.seen == 12 * count, "a block is asked for before the one before it is measured"
            block = np.repeat(FACES[1:2], 12, 0)
            alive.append(weakref.ref(block))
            yield block
            del block

    seen: list[int] = []
    told: list[tuple[int, int]] = []
    measure(blocks(), minutes[:2], gauge, lambda t, frame: seen.append(t), lambda *now: told.append(now), 2 * MINUTE)
    assert most <= 2 and seen == list(range(2 * MINUTE)) and told[-1] == (2 * MINUTE, 2 * MINUTE)
    assert sorted(told) == told and len(gauge.rows) == 2


def test_what_is_over_or_missing_at_the_end_counts_for_nothing(minutes: list[Clip]) -> None:
    gauge = meter()
    measure(iter([np.repeat(FACES[1:2], MINUTE + 5, 0)]), minutes[:1], gauge)
    assert len(gauge.rows) == 1 and gauge.seen == MINUTE
    gauge = meter()
    measure(iter([np.repeat(FACES[1:2], MINUTE + 5, 0)]), minutes, gauge)
    assert len(gauge.rows) == 1
    with pytest.raises(ConfigError, match="at least"):
        meter().figures()


def test_minutes_of_a_call_are_alike_and_heldout(bank: SpeechBank, make_bank: MakeBank, minutes: list[Clip]) -> None:
    again = call_minute(bank, 1)
    assert np.array_equal(again.samples, minutes[1].samples) and np.array_equal(again.track, minutes[1].track)
    assert not np.array_equal(minutes[0].samples, minutes[1].samples)
    assert not np.array_equal(call_minute(bank, 1, seed=1).samples, minutes[1].samples)
    for clip in minutes:
        assert clip.num_frames == MINUTE and len(clip.samples) == MINUTE * SAMPLES_PER_FRAME
        assert 0.4 < clip.speaking.mean() < 0.8 and clip.character_seed == caller(0) < 64
        for (_, end), (start, _) in pairwise(TURNS):
            silence = slice(round((end + 0.5) * FPS), round((start - 0.5) * FPS))
            assert clip.closed[silence].all() and not clip.speaking[silence].any()
            assert not clip.samples[silence.start * SAMPLES_PER_FRAME : silence.stop * SAMPLES_PER_FRAME].any()
    with pytest.raises(ConfigError, match="heldout"):
        call_minute(make_bank("train"), 0)
    with pytest.raises(ConfigError, match="at least 1"):
        LongRunConfig(minutes=0)


def test_the_drawn_truth_scores_full_marks(minutes: list[Clip]) -> None:
    clip = minutes[0]
    character = sample_character(clip.character_seed)
    size = 128
    gauge = Meter(draw(character, Pose(), size), portraits(size), clip.character_seed, load_reader(), CHUNK)
    gauge.add(draw_clip(character, clip.track[:350], size))
    gauge.end_minute(clip)
    row = gauge.rows[0]
    assert row["lips_r"] > 0.9 and row["shut_in_silence"] > 0.9 and row["top1"] == 1 and not row["still"]
    assert row["motion"] == pytest.approx(1, abs=0.4) and row["blinks"] == pytest.approx(row["truth_blinks"], abs=1)
    assert row["identity"] > 0.6 and row["sharpness"] == pytest.approx(1, abs=0.1) and row["colour_distance"] < 12


def test_a_student_of_random_weights_is_measured(bank: SpeechBank) -> None:
    spec = tiny()
    torch.manual_seed(0)
    avatar = Avatar(spec, CausalVAE(spec.vae), DiT(spec.dit), torch.device("cpu"), features=random_features(spec))
    shapes, told = set(), []

    def look(index: int, pixels: np.ndarray) -> None:
        shapes.add(pixels.shape)

    figures = long_run(
        avatar, bank, lambda *now: told.append(now), LongRunConfig(minutes=1, every=25), reader=Corner(), look=look
    )
    assert figures["minutes"] == 1 and figures["frames"] == MINUTE and figures["character"] == caller(0)
    assert shapes == {(64, 64, 3)} and told[-1] == (MINUTE, MINUTE)
    assert all(len(values) == 1 and np.isfinite(values[0]) for values in figures["series"].values())
    # Chunks of 2 latent frames: the second begins with frame 5, the third with 13.
    gauge = Meter(FACES[1], FACES, 1, Corner(), spec.chunk.frames)
    assert [t for t in range(25) if gauge.is_border(t)] == [5, 13, 21]
    assert json.loads(json.dumps(figures)) == figures


def figures_of(lips: float, likeness: float, top1: float, energy: float, listening: float) -> dict[str, object]:
    return {
        "lips": {"r": lips, "clips": 2},
        "identity": {"drawn_likeness": likeness, "drawn_top1": top1},
        "motion": {"energy": energy, "listening": listening, "clips": 1},
        "seconds": 5.0,
    }


def test_student_over_teacher_by_hand() -> None:
    ratios = compare(figures_of(0.8, 0.9, 1.0, 0.5, 0.3), figures_of(0.8, 0.6, 0.5, 1.0, 0.0))
    assert ratios["lips_r"] == 1 and ratios["identity"] == pytest.approx(1.5) and ratios["top1"] == 2
    assert ratios["motion"] == 0.5 and ratios["motion_listening"] is None
    assert ratios["teacher"]["motion"] == 1 and ratios["clips"] == 3


def test_the_teacher_takes_its_steps_on_the_same_clips(bank: SpeechBank, monkeypatch: pytest.MonkeyPatch) -> None:
    class Teacher:
        size, vae, device = 64, None, torch.device("cpu")
        framing = partial(fit_centre, size=64)

        def generate(self, image: np.ndarray, speech: np.ndarray, *, seed: int, steps: int) -> np.ndarray:
            return np.full((1, 64, 64, 3), steps + seed, np.uint8)

    def run(speaker: object, given: object, progress: object, clips: EvalConfig, **other: object) -> dict[str, object]:
        assert clips == EvalConfig(vae_clips=1, elsewhere_clips=0, toon_clips=0, seed=4)
        assert given is bank and other["recordings"] == ()
        assert speaker.generate(FACES[0], np.zeros(9), seed=1).max() == 31  # type: ignore[attr-defined]
        return figures_of(0.5, 1, 1, 1, 1)

    monkeypatch.setattr("talkingmachines.evaluation.against.evaluate", run)
    ratios = against_teacher(figures_of(0.25, 1, 1, 1, 1), Teacher(), bank, clips=EvalConfig(seed=4))
    assert ratios["lips_r"] == 0.5 and ratios["steps"] == 30
