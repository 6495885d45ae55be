"""Loading what has encoders, and what is said when something is missing."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stream_models import sound
from wan_models import SomeTokens, encoders, tiny_wan, wan_models

from talkingmachines import avatar as avatar_module
from talkingmachines.avatar import Avatar, load
from talkingmachines.errors import CheckpointError, ConfigError
from talkingmachines.media.face import Box
from talkingmachines.presets import PRESETS, Preset
from talkingmachines.vae.wan import WanVAE
from talkingmachines.weights import save_weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(PRESETS, "tiny_wan", tiny_wan)
    for name, model in zip(("student", "vae"), wan_models(), strict=True):
        save_weights(tmp_path, name, model, {"preset": "tiny_wan"})
    return tmp_path


def test_loaded_with_its_encoders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(avatar_module, "load_encoders", lambda *given: (asked.append(given), encoders())[1])
    avatar = load(str(folder), device="cpu", dtype=torch.float32, shape=(32, 48), prompt="a man talks")
    assert asked == [
        (folder / "encoders", folder / "encoders" / "speech_encoder", torch.device("cpu"), 5, "a man talks")
    ]
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    with avatar.session(picture) as session:
        assert len(session.push_audio(sound(640 * 13))) == 13
    assert isinstance(avatar.vae, WanVAE) and avatar.chunk_frames == 8


def test_what_is_missing_is_said_before_anything_is_loaded(folder: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match=r"encoders does not exist: .* encoders="):
        load(str(folder), device="cpu")
    with pytest.raises(CheckpointError, match=r"/no/such does not exist"):
        load(str(folder), device="cpu", encoders="/no/such")
    (folder / "encoders").mkdir()
    with pytest.raises(CheckpointError, match=r"speech_encoder does not exist: .* speech_encoder="):
        load(str(folder), device="cpu")
    (folder / "encoders" / "speech_encoder").mkdir()
    for part in ("text_encoder", "tokenizer", "image_encoder"):
        with pytest.raises(CheckpointError, match=f"has no {part}: .* get the rest"):
            load(str(folder), device="cpu")
        (folder / "encoders" / part).mkdir()
    with pytest.raises(CheckpointError, match=r"taew2_1\.pth does not exist"):
        load(str(folder), device="cpu", tiny_decoder=folder / "taew2_1.pth")
    with pytest.raises(ConfigError, match="fp8 needs a GPU"):
        load(str(folder), device="cpu", fp8=True)
    with pytest.raises(ConfigError, match="multiples of 16, got 512 wide and 500 high"):
        load(str(folder), device="cpu", shape=(500, 512))


def test_encoders_of_other_models_are_refused_before_the_student_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Others(SomeTokens):
        def picture(self, picture: np.ndarray) -> torch.Tensor:
            return torch.zeros(1, 4, 15)

    monkeypatch.setattr(avatar_module, "load_encoders", lambda *given: replace(encoders(), tokens=Others()))
    monkeypatch.setattr(avatar_module, "unfilled", None)
    with pytest.raises(CheckpointError, match="told 4 tokens of 14 by its image_encoder, this one makes 4 of 15"):
        load(str(folder), device="cpu")


def looking(monkeypatch: pytest.MonkeyPatch, found: Box | None, spec: Preset | None = None) -> tuple[Avatar, list[Box]]:
    """An avatar whose detector finds that, and the boxes of the calls that it opens."""
    monkeypatch.setattr(avatar_module, "find_face", lambda picture: found)
    student, vae = wan_models()
    avatar = Avatar(
        spec or replace(tiny_wan(), finds_face=True),
        vae,
        student,
        torch.device("cpu"),
        torch.float32,
        encoders=encoders(),
    )
    boxes: list[Box] = []
    opened = avatar.engine.open
    monkeypatch.setattr(
        avatar.engine, "open", lambda image, seed, box, **told: (boxes.append(box), opened(image, seed, box, **told))[1]
    )
    return avatar, boxes


@pytest.mark.parametrize(
    ("finds", "found", "given", "wanted", "whose"),
    [
        (True, (0.25, 0, 0.75, 0.5), None, (0.25, 0, 0.75, 0.5), "0.25,0.00,0.75,0.50: found in the picture"),
        (True, (0.25, 0, 0.75, 0.5), (0, 0, 1, 1), (0, 0, 1, 1), "0.00,0.00,1.00,1.00: given"),
        (True, None, None, (0.15, 0.1, 0.85, 0.9), "0.15,0.10,0.85,0.90: the preset's"),
        (False, (0.25, 0, 0.75, 0.5), None, (0.15, 0.1, 0.85, 0.9), None),
        (False, None, (0.15, 0.1, 0.85, 0.9), (0.15, 0.1, 0.85, 0.9), None),
    ],
)
def test_where_a_call_listens(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    finds: bool,
    found: Box | None,
    given: Box | None,
    wanted: Box,
    whose: str | None,
) -> None:
    """It is said where there is a choice."""
    caplog.set_level(logging.INFO)
    avatar, boxes = looking(monkeypatch, found, replace(tiny_wan(), finds_face=finds))
    picture = np.zeros((70, 90, 3), np.uint8)
    avatar.session(picture, face_box=given).close()
    avatar.live(picture, face_box=given).close()
    avatar.generate(picture, sound(640), face_box=given)
    assert boxes == [wanted] * 3
    assert caplog.text.count(whose or "face box") == (3 if whose else 0)


@pytest.mark.parametrize(
    ("finds", "box", "words"),
    [(True, (0.5, 0, 0.5, 1), "a face box is"), (False, (0, 0, 1, 1), "0.15,0.1,0.85,0.9 alone")],
)
def test_boxes_are_checked_before_a_call_opens(
    monkeypatch: pytest.MonkeyPatch, finds: bool, box: Box, words: str
) -> None:
    avatar, boxes = looking(monkeypatch, None, replace(tiny_wan(), finds_face=finds))
    picture = np.zeros((70, 90, 3), np.uint8)
    for use in (
        avatar.session,
        avatar.live,
        lambda image, face_box: avatar.generate(image, sound(640), face_box=face_box),
    ):
        with pytest.raises(ConfigError, match=words):
            use(picture, face_box=box)
    assert boxes == []


def test_faces_are_looked_for_where_they_vary() -> None:
    """The pocket has learned with one box: another one would be nothing that it knows."""
    assert {name: make().finds_face for name, make in PRESETS.items()} == {
        "pocket": False,
        "tiny": False,
        "wan_14b": True,
        "wan_1_3b": True,
    }
