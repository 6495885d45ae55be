import numpy as np
import pytest

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.excerpt import OPENING, make_excerpt
from talkingmachines.data.synthetic.gestures import GESTURE_FIELDS
from talkingmachines.data.synthetic.pose import POSE_FIELDS

LENGTH = 61
HEAD = [POSE_FIELDS.index(name) for name in GESTURE_FIELDS if name.startswith("head")]
MOUTH = POSE_FIELDS.index("mouth_open")


@pytest.fixture(scope="module")
def excerpts(heldout_bank: SpeechBank) -> list:
    return [make_excerpt(seed, "heldout", LENGTH, heldout_bank) for seed in range(40)]


def test_an_excerpt_is_a_beginning_and_a_later_stretch(excerpts: list) -> None:
    gaps = []
    for excerpt in excerpts:
        shown = excerpt.shown
        assert excerpt.track.shape == (LENGTH, len(POSE_FIELDS)) and shown.shape == (LENGTH,)
        assert np.array_equal(shown[:OPENING], np.arange(OPENING)) and np.all(np.diff(shown[OPENING:]) == 1)
        assert shown[-1] == excerpt.clip.num_frames - 1
        assert np.array_equal(excerpt.track[:, MOUTH], excerpt.clip.track[shown, MOUTH]), "lips stay with the sound"
        gaps.append(shown[OPENING] - OPENING)
    assert 0 in gaps and max(gaps) > 200


def test_heads_glide_from_one_to_the_other(excerpts: list) -> None:
    jumps = [np.abs(np.diff(excerpt.track[:, HEAD], axis=0)).max(0) for excerpt in excerpts]
    cuts = [np.abs(np.diff(excerpt.clip.track[excerpt.shown][:, HEAD], axis=0)).max(0) for excerpt in excerpts]
    assert np.max(jumps) < np.max(cuts) / 2


def test_the_same_arguments_make_the_same_excerpt(heldout_bank: SpeechBank, excerpts: list) -> None:
    again = make_excerpt(7, "heldout", LENGTH, heldout_bank)
    assert np.array_equal(again.track, excerpts[7].track) and np.array_equal(again.shown, excerpts[7].shown)
