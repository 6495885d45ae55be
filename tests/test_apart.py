"""An avatar in a process of its own: the same pictures, the same errors, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from random_weights import randomise, save_features

from talkingmachines import avatar
from talkingmachines.apart import ApartAvatar, _Host
from talkingmachines.dit.model import DiT
from talkingmachines.errors import ConfigError, MediaError, SessionError
from talkingmachines.media.image import fit_image
from talkingmachines.presets import tiny
from talkingmachines.streaming.pacing import LiveSession
from talkingmachines.vae.model import CausalVAE
from talkingmachines.weights import save_weights

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
NOTHING = np.zeros(0, np.float32)


@pytest.fixture(name="weights", scope="module")
def _weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, spec = tmp_path_factory.mktemp("weights"), tiny()
    for name, model in (("student", DiT(spec.dit)), ("vae", CausalVAE(spec.vae))):  # type: ignore[arg-type]
        randomise(model, 1, 0.5)
        save_weights(folder, name, model, {"preset": "tiny"})
    save_features(folder)
    return folder


@pytest.fixture(name="apart", scope="module")
def _apart(weights: Path) -> Iterator[ApartAvatar]:
    made = ApartAvatar(str(weights), device="cpu", begin=partial(Path.touch, weights / "begun"), yields=False)
    assert (weights / "begun").exists()
    yield made
    made.close()
    made.close()
    assert not Path(f"/proc/{made.pid}").exists()


def frames_of(session: LiveSession, chunks: int = 3) -> list[np.ndarray]:
    """Two chunks denoised before the first of them is decoded."""
    sound, waiting, frames = np.random.default_rng(1), [], []
    for _ in range(chunks):
        samples = 0.2 * sound.standard_normal(session.samples_wanted).astype(np.float32)
        waiting.append(session.denoise(samples, NOTHING))
        if len(waiting) == 2:
            frames += session.decode(waiting.pop(0))
    return [frame.pixels for frame in [*frames, *session.decode(waiting.pop())]]


def test_the_pictures_of_an_avatar_in_this_process(apart: ApartAvatar, weights: Path) -> None:
    here = avatar.load(str(weights), device="cpu", steps=1)
    assert (apart.shape, apart.chunk_frames) == (here.shape, here.chunk_frames)
    assert (apart.window, apart.steps) == (here.preset.chunk.window, here.preset.chunk.steps)
    made, wanted = (frames_of(which.session(IMAGE, 3)) for which in (apart, here))
    assert len(made) == len(wanted) == 5 + 2 * 8
    # As many threads there as here: rounding is the same.
    assert np.array_equal(np.stack(made), np.stack(wanted))


def test_a_processor_makes_calls_in_one_step_unless_told(weights: Path) -> None:
    options = {"name_or_path": str(weights), "device": "cpu"}
    steps = [_Host().load(options | more, None, False)[3] for more in ({}, {"steps": None}, {"steps": 2}, {"steps": 3})]
    assert steps == [1, 1, 2, 3]


def test_pictures_are_cut_there(apart: ApartAvatar) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8)
    assert np.array_equal(apart.fit(wide), fit_image(wide, 64))
    with pytest.raises(MediaError):
        apart.fit(wide[..., 0])


def test_nothing_is_read_from_the_folder_it_is_called_in(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets.py").write_text("raise SystemExit('this is not the module that was meant')")
    monkeypatch.chdir(tmp_path)
    ApartAvatar(str(weights), device="cpu").close()


def test_two_sessions_do_not_meet(apart: ApartAvatar) -> None:
    first, second = apart.session(IMAGE, 1), apart.session(IMAGE, 2)
    pieces = [frames_of(session, 1) for session in (first, second)]
    assert not np.array_equal(*map(np.stack, pieces))
    assert np.array_equal(np.stack(frames_of(apart.session(IMAGE, 1), 1)), np.stack(pieces[0]))


def test_a_chunk_of_a_session_that_is_closed(apart: ApartAvatar) -> None:
    session = apart.session(IMAGE)
    made = session.denoise(np.zeros(session.samples_wanted, np.float32), NOTHING)
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.decode(made)


def test_signals_to_both_leave_it_to_the_other(apart: ApartAvatar) -> None:
    """Ctrl+C, or what stops a service: calls are ended by the other process, which needs it for that."""
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(apart.pid, number)
    time.sleep(0.2)
    assert frames_of(apart.session(IMAGE), 1)


def test_a_live_call_plays(apart: ApartAvatar) -> None:
    call = apart.live(IMAGE)
    frames = call.frames()
    assert next(frames).pixels is not None
    call.close()
    assert list(frames) == []


def test_errors_come_back_as_what_they_are(apart: ApartAvatar) -> None:
    with pytest.raises(ConfigError, match="'nowhere' is neither a preset"):
        ApartAvatar("nowhere")
    with pytest.raises(ConfigError, match="leave the face box out"):
        apart.check_box((0, 0, 0.5, 0.5))
    with pytest.raises(MediaError, match="picture"):
        apart.session(IMAGE[0])
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        ApartAvatar("nowhere", begin=partial(os.stat, "nothing_here"))
    session = apart.session(IMAGE)
    with pytest.raises(MediaError, match="NaN"):
        session.denoise(np.full(session.samples_wanted, np.nan, np.float32), NOTHING)
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.denoise(np.zeros(session.samples_wanted, np.float32), NOTHING)


def test_a_process_that_is_killed_interrupts_who_needs_it(weights: Path) -> None:
    lost = ApartAvatar(str(weights), device="cpu")
    session = lost.session(IMAGE)
    with pytest.raises(SessionError, match=r"has ended \(-9\)"), lost.needed():
        os.kill(lost.pid, signal.SIGKILL)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
    for ask in (lambda: lost.session(IMAGE), lambda: session.denoise(NOTHING, NOTHING)):
        with pytest.raises(SessionError, match="has ended"):
            ask()
    session.close()
    lost.close()


def test_it_ends_when_its_pipe_is_closed() -> None:
    """As the system does when the process that began it is killed."""
    command = [sys.executable, "-c", "from talkingmachines.apart import serve; serve()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write("00" * 32 + "\n")
        process.stdin.flush()
        address = Path(process.stdout.readline().strip())
        assert address.is_socket() and process.poll() is None
        process.stdin.close()
        assert process.wait(10) == 0 and not address.exists()


def test_a_pipe_that_is_closed_before_it_serves() -> None:
    command = [sys.executable, "-c", "from talkingmachines.apart import serve; serve()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.communicate("00" * 32 + "\n", timeout=60)
        assert process.returncode == 0
