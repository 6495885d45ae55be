import json
from dataclasses import asdict, replace

import numpy as np
import pytest

pytest.importorskip("skia")

from talkingmachines.data.synthetic.character import HAIRS, STYLES, Character, sample_character
from talkingmachines.data.synthetic.draw import draw, draw_clip, face_box, head_mask, mouth_box
from talkingmachines.data.synthetic.pose import POSE_FIELDS, Pose
from talkingmachines.data.synthetic.preview import contact_sheet

SEEDS = (0, 3, 7, 14, 1000)
MOVED = Pose(head_x=0.03, head_y=-0.02, head_roll=0.08, head_yaw=-0.5, head_pitch=0.4)


def _changed(one: np.ndarray, other: np.ndarray, threshold: int = 0) -> np.ndarray:
    return np.abs(one.astype(int) - other).max(-1) > threshold


def _inside(box: tuple[float, float, float, float], size: int = 256) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (round(v * size) for v in box)
    return slice(y0, y1), slice(x0, x1)


def test_same_inputs_same_picture() -> None:
    look = sample_character(5)
    assert look == sample_character(5)
    first = draw(look, MOVED)
    draw(sample_character(6), Pose())
    assert np.array_equal(first, draw(look, MOVED))
    assert first.shape == (256, 256, 3) and first.dtype == np.uint8


def test_a_character_survives_json() -> None:
    look = sample_character(9)
    stored = json.loads(json.dumps(asdict(look)))
    loaded = Character(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
    assert loaded == look


def test_unknown_hair_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="'mullet'"):
        replace(sample_character(0), hair="mullet")


def test_seeds_differ_and_cover_the_styles() -> None:
    looks = [sample_character(seed) for seed in range(300)]
    assert {look.style for look in looks} == set(STYLES)
    assert {look.hair for look in looks} == set(HAIRS)
    small = [draw(look, Pose(), 64).astype(float) for look in looks[:24]]
    gaps = [np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]]
    assert min(gaps) > 4


def test_clip_is_the_same_as_its_frames() -> None:
    look = sample_character(2)
    poses = [Pose(), MOVED, Pose(mouth_open=0.5, eye_open=0.2)]
    clip = draw_clip(look, np.stack([pose.to_row() for pose in poses]))
    for frame, pose in zip(clip, poses, strict=True):
        assert np.array_equal(frame, draw(look, Pose.from_row(pose.to_row())))


def test_a_track_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        draw_clip(sample_character(0), np.zeros((4, 3), np.float32))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("other", [{}, {"mouth_round": 1.0}, {"mouth_wide": 1.0}, {"smile": 1.0}])
def test_gap_is_none_when_shut_and_grows(seed: int, other: dict[str, float]) -> None:
    """With the mouth shut, teeth and tongue change no pixel; then the change grows with the opening."""
    look = sample_character(seed)
    shut = Pose(**other)
    still = draw(look, shut)
    assert np.array_equal(still, draw(look, replace(shut, teeth=1.0, tongue=1.0)))
    place = _inside(mouth_box(look, replace(shut, mouth_open=1.0)))
    openings = (0.1, 0.3, 0.5, 0.75, 1.0)
    change = [_changed(draw(look, replace(shut, mouth_open=o)), still, 24)[place].sum() for o in openings]
    assert change[0] > 0 and np.all(np.diff(change) > 0), change


@pytest.mark.parametrize("seed", range(0, 40, 3))
def test_head_mask_holds_all_that_a_moving_head_changes(seed: int) -> None:
    look = sample_character(seed)
    rest, moved = Pose(), replace(MOVED, mouth_open=0.8, smile=1.0, brow_raise=1.0)
    changed = _changed(draw(look, rest), draw(look, moved))
    assert changed.sum() > 500
    assert not (changed & ~(head_mask(look, rest) | head_mask(look, moved))).any()


def test_the_background_never_moves_and_breath_moves_only_the_body() -> None:
    look = sample_character(1)
    pictures = [draw(look, pose) for pose in (Pose(), MOVED, Pose(breath=1.0))]
    for picture in pictures[1:]:
        assert np.array_equal(picture[:100, :24], pictures[0][:100, :24])
    breathing = _changed(pictures[0], pictures[2])
    assert breathing.any() and not breathing[:150].any()


def test_every_field_moves_something() -> None:
    look = sample_character(0)
    base = Pose(mouth_open=0.5, eye_open=0.9)
    for name in POSE_FIELDS:
        value = getattr(base, name)
        assert _changed(draw(look, base), draw(look, replace(base, **{name: value + 0.4}))).any(), name


@pytest.mark.parametrize("name", POSE_FIELDS)
def test_small_moves_make_small_changes(name: str) -> None:
    """No popping: along a fine path, no step stands far out of its neighbours."""
    low, high = {"eye_open": (0.0, 1.2), "head_roll": (-0.08, 0.08)}.get(name, (0.0, 1.0))
    if name in ("head_x", "head_y"):
        low, high = -0.03, 0.03
    track = np.stack([Pose(mouth_open=0.2).to_row()] * 33)
    track[:, POSE_FIELDS.index(name)] = np.linspace(low, high, 33)
    for seed in (0, 4):
        clip = draw_clip(sample_character(seed), track).astype(float)
        steps = np.abs(np.diff(clip, axis=0)).sum((1, 2, 3)) / 255
        assert steps.max() < 3 * np.median(steps) + 40, (seed, steps.max(), np.median(steps))


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_lie_in_the_picture_and_the_mouth_in_the_face(seed: int) -> None:
    look = sample_character(seed)
    for pose in (Pose(), MOVED):
        face, mouth = face_box(look, pose), mouth_box(look, pose)
        assert 0 < face[0] < mouth[0] < mouth[2] < face[2] < 1
        assert 0 < face[1] < mouth[1] < mouth[3] < face[3] + 0.06 < 1
        assert 0.4 < face[3] - face[1] < 0.6


def test_contact_sheet_is_a_filled_grid() -> None:
    sheet = contact_sheet(range(5), 32)
    assert sheet.shape == (64, 96, 3)
    assert (sheet[32:, 64:] == 255).all() and sheet[:32, :32].std() > 5
