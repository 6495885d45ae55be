from collections.abc import Callable

import numpy as np
import pytest
import torch

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.degrade import degrade
from talkingmachines.evaluation.reader import READ_FIELDS, SCALES, FaceReader, load_reader, reader_folder
from talkingmachines.evaluation.reader_stage import ReaderBatches, ReaderRecipe, drawn_accuracy
from talkingmachines.evaluation.scores import CLOSED_THRESHOLD
from talkingmachines.weights import read_metadata

pytest.importorskip("skia")

MakeBank = Callable[[str], SpeechBank]


def test_reader_is_small_and_reads_any_size() -> None:
    torch.manual_seed(0)
    reader = FaceReader()
    assert sum(p.numel() for p in reader.parameters()) <= 600_000
    for size in (64, 256):
        read = reader.read(np.zeros((3, size, size, 3), np.uint8))
        assert tuple(read) == READ_FIELDS and all(track.shape == (3,) for track in read.values())


def test_pieces_of_a_clip_read_like_the_whole() -> None:
    torch.manual_seed(0)
    reader, frames = FaceReader(), np.random.default_rng(0).integers(0, 256, (40, 256, 256, 3), dtype=np.uint8)
    whole, single = reader.read(frames), reader.read(frames[35:36])
    for name in READ_FIELDS:
        assert whole[name][35] == pytest.approx(single[name][0], abs=1e-4)


def test_batches_depend_on_the_step_alone(make_bank: MakeBank) -> None:
    batches = ReaderBatches(make_bank("train"), ReaderRecipe(characters=2, poses=2))
    one, again, other = batches[3], batches[3], batches[4]
    assert torch.equal(one["pixels"], again["pixels"]) and torch.equal(one["pose"], again["pose"])
    assert not torch.equal(one["pose"], other["pose"])
    assert one["pixels"].shape == (4, 144, 160, 3) and one["pose"].shape == (4, len(READ_FIELDS))


def test_degrading_keeps_the_picture_recognisable() -> None:
    rng = np.random.default_rng(0)
    pixels = np.zeros((144, 160, 3), np.uint8)
    pixels[:, 80:] = 200
    spoilt = [degrade(pixels, pixels, rng) for _ in range(30)]
    assert 1 < sum(np.array_equal(s, pixels) for s in spoilt) < 20
    for picture in spoilt:
        assert picture.shape == pixels.shape and picture.dtype == np.uint8
        assert picture[:, 90:].mean() > picture[:, :70].mean() + 100


def test_the_shipped_reader_reads_heldout_characters(make_bank: MakeBank) -> None:
    accuracy = drawn_accuracy(load_reader(), make_bank("heldout"), 5)
    assert accuracy["mouth_open_r"] > 0.97 and accuracy["eye_open_r"] > 0.9 and accuracy["head_x_r"] > 0.8


def test_the_threshold_lies_above_the_readers_error_on_shut_mouths() -> None:
    measured = read_metadata(reader_folder(), "reader")["heldout"]
    assert isinstance(measured, dict) and measured["shut_q98"] <= CLOSED_THRESHOLD
    assert measured["mouth_open_clip_r"] >= 0.98 and len(SCALES) == len(READ_FIELDS)
