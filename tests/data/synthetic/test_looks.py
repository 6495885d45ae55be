from dataclasses import replace

import numpy as np
import pytest

from talkingmachines.data.synthetic.character import Character, sample_character
from talkingmachines.data.synthetic.looks import boxes, draw_clip, places_of, sample_look
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.data.synthetic.toon import Toon
from talkingmachines.framing.finder import face_size
from talkingmachines.presets import pocket

pytest.importorskip("skia")

TOONS = [Toon(seed) for seed in range(40)]


def drawn(look: Toon | Character, size: int = 128, **pose: float) -> np.ndarray:
    return draw_clip(look, replace(Pose(), **pose).to_row()[None], size)[0].astype(int)


def test_a_seed_is_a_look_and_one_in_three_is_a_toon() -> None:
    looks = [sample_look(seed) for seed in range(300)]
    assert looks == [sample_look(seed) for seed in range(300)]
    assert 0.25 < np.mean([isinstance(look, Toon) for look in looks]) < 0.45
    assert all(look == sample_character(seed) for seed, look in enumerate(looks) if isinstance(look, Character))


@pytest.mark.parametrize("toon", TOONS[:12], ids=str)
def test_a_toon_is_the_same_at_any_size_and_time(toon: Toon) -> None:
    large, small = drawn(toon, 256), drawn(toon, 64)
    assert np.abs(large.reshape(64, 4, 64, 4, 3).mean((1, 3)) - small).mean() < 10
    assert np.array_equal(drawn(toon, 64), small) and not np.array_equal(drawn(Toon(toon.seed + 500), 64), small)


@pytest.mark.parametrize("toon", TOONS, ids=str)
def test_faces_are_where_the_pocket_has_learned_to_have_them(toon: Toon) -> None:
    assert pocket().faces is not None and pocket().faces.fits(np.array(places_of(toon, Pose())))
    (x0, y0, x1, y1), (m0, m1, m2, m3) = boxes(toon)
    assert 0 <= x0 <= m0 < m2 <= x1 <= 1 and 0 <= y0 < m1 < m3 <= y1 <= 1
    left, right, mouth = places_of(toon, Pose())
    assert x0 < left[0] < mouth[0] < right[0] < x1 and y0 < left[1] < mouth[1] < y1 and left[1] == right[1]
    assert m0 < mouth[0] < m2 and m1 < mouth[1] < m3


@pytest.mark.parametrize("toon", TOONS, ids=str)
@pytest.mark.parametrize("change", [
    {"mouth_open": 1.0}, {"mouth_open": 0.6, "mouth_wide": 0.8}, {"mouth_open": 0.5, "mouth_round": 1.0},
])  # fmt: skip
def test_a_mouth_opens_within_its_box_and_nothing_above_changes(toon: Toon, change: dict[str, float]) -> None:
    change_at = np.argwhere(np.abs(drawn(toon, 256) - drawn(toon, 256, **change)).max(2) > 24)
    _, (x0, _, x1, y1) = boxes(toon)
    (_, eye), _, _ = places_of(toon, Pose())
    assert len(change_at) > 15
    within = (change_at[:, 1] >= 256 * x0 - 3) & (change_at[:, 1] <= 256 * x1 + 3)
    assert change_at[:, 0].min() > 256 * eye - 20  # the jaw goes down, too, and a muzzle
    assert within.mean() > 0.15 and (change_at[within, 0] < 256 * y1 + 14).any()


@pytest.mark.parametrize("toon", TOONS[:20], ids=str)
def test_lids_shut_and_a_head_moves(toon: Toon) -> None:
    rest = drawn(toon, 256)
    shut = np.argwhere(np.abs(rest - drawn(toon, 256, eye_open=0.0)).max(2) > 24)
    left, right, mouth = 256 * np.array(places_of(toon, Pose()))
    assert (shut[:, 0] < mouth[1]).all() and left[0] - 40 < shut[:, 1].min() and shut[:, 1].max() < right[0] + 40
    moved = 256 * np.array(places_of(toon, replace(Pose(), head_x=0.02, head_y=-0.02)))
    assert np.allclose(moved - [left, right, mouth], [5.12, -5.12])
    rolled = 256 * np.array(places_of(toon, replace(Pose(), head_roll=0.1)))
    assert rolled[0][1] < rolled[1][1] and face_size(rolled) == pytest.approx(face_size(np.array([left, right, mouth])))


@pytest.mark.parametrize("field", sorted(set(POSE_FIELDS) - {"teeth", "tongue"}))
def test_every_part_of_a_pose_shows_in_some_toon(field: str) -> None:
    value = {"eye_open": 0.0, "head_roll": 0.06, "head_x": 0.02, "head_y": 0.02}.get(field, 0.9)
    before: dict[str, float] = {"mouth_open": 0.5} if field in ("mouth_wide", "mouth_round") else {}
    after = before | {field: value}
    changed = [np.abs(drawn(toon, **before) - drawn(toon, **after)).max() for toon in TOONS[:12]]
    assert max(changed) > 40


def test_clips_of_either_kind() -> None:
    track = np.stack([Pose().to_row(), replace(Pose(), mouth_open=0.8).to_row()])
    for look in (Toon(3), sample_character(3)):
        clip = draw_clip(look, track, 64)
        assert clip.shape == (2, 64, 64, 3) and clip.dtype == np.uint8 and (clip[0] != clip[1]).any()
