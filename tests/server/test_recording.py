import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from server_fakes import CHARACTER, OFFER, SIZE, FakeSignalling, fake_app, wait_for_ever

from talkingmachines.errors import MediaError
from talkingmachines.server import calls, recording, recordings
from talkingmachines.server.mixing import Mixer
from talkingmachines.server.recording import Recorder, recover
from talkingmachines.types import SAMPLE_RATE, SAMPLES_PER_FRAME

ENDLESS = """
import itertools, sys, time
from pathlib import Path
import numpy as np
from talkingmachines.server.recording import Recorder

moment = 0.0
recorder = Recorder(Path(sys.argv[1]), (64, 64), "a call", lambda: moment)
for index in itertools.count():
    moment = index / 25
    recorder.picture(np.full((64, 64, 3), index % 256, np.uint8))
    recorder.character(np.full(640, 0.2, np.float32))
    if index == 125:
        print("5 seconds", flush=True)
    while recorder._items.qsize() > 4:
        time.sleep(0.001)
"""


@pytest.fixture(name="disk")
def _disk(monkeypatch):
    """Hangs where a file is opened, until it is `set`."""
    works_again, opened = threading.Event(), recording._File
    monkeypatch.setattr(recording, "_File", lambda *given: works_again.wait() and opened(*given))
    yield works_again
    works_again.set()


def wait_until(what):
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def nothing_is_written():
    return "recording" not in [thread.name for thread in threading.enumerate()]


def opened(path):
    recorder = Recorder(path, (SIZE, SIZE), "a call")
    recorder.wait_until_open()
    return recorder


def record(path, seconds, moment, tone=0.0):
    """A recording of a call in which time is a list of one number."""
    recorder = Recorder(path, (SIZE, SIZE), "a call", lambda: moment[0])
    for index in range(round(seconds * 25)):
        moment[0] = index / 25
        recorder.picture(np.full((SIZE, SIZE, 3), 255 * (index % 25 == 12), np.uint8))
        recorder.character(np.full(SAMPLES_PER_FRAME, 0.5 * (index % 25 == 12), np.float32))
        recorder.user(np.full(SAMPLES_PER_FRAME, tone, np.float32))
    return recorder


def decode(path):
    """Times of the pictures, their mean brightness, the sound, and the tags."""
    with av.open(str(path)) as file:
        pictures = [(frame.time, frame.to_ndarray(format="gray").mean()) for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
        return np.array(pictures), sound, dict(file.metadata)


def test_both_voices_and_the_picture(tmp_path):
    moment = [0.0]
    recorder = record(tmp_path / "a.mp4", 4, moment, tone=0.1)
    moment[0] = 4.0
    assert recorder.close() == recorder.close() == tmp_path / "a.mp4"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    pictures, sound, tags = decode(tmp_path / "a.mp4")
    assert len(pictures) == 100 and recorder.lost == 0
    assert np.diff(pictures[:, 0]) == pytest.approx(0.04, abs=0.002)
    assert tags["comment"].startswith("AI-generated") and tags["title"] == "a call"
    assert len(sound) / SAMPLE_RATE == pytest.approx(4, abs=0.2)
    assert sound.mean() == pytest.approx(0.1 + 0.5 / 25, abs=0.03)
    # The flash and the click that belong together are less than a frame apart.
    flashes = pictures[pictures[:, 1] > 128][:, 0]
    loud = np.flatnonzero(np.abs(np.convolve(sound - 0.1, np.ones(320) / 320, "same")) > 0.25) / SAMPLE_RATE
    assert len(flashes) == 4
    for flash in flashes:
        assert np.min(np.abs(loud - flash - 0.02)) < 0.04


def test_a_killed_process_leaves_a_file_that_plays(tmp_path):
    path = tmp_path / "call.mp4"
    child = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "5 seconds\n"
        assert recover(tmp_path) == []  # it is still being written
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert [file.name for file in tmp_path.iterdir()] == ["call.part.mp4"]
    pictures, sound, tags = decode(tmp_path / "call.part.mp4")
    assert len(pictures) >= 75 and len(sound) / SAMPLE_RATE > 2.5
    assert tags["comment"].startswith("AI-generated")
    assert recover(tmp_path) == [tmp_path / "call-cut.mp4"] and recover(tmp_path) == []
    assert len(decode(tmp_path / "call-cut.mp4")[0]) == len(pictures)


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_disk_that_fails_ends_the_recording_and_nothing_else(tmp_path, monkeypatch):
    recorder = opened(tmp_path / "a.mp4")

    monkeypatch.setattr(recorder._file, "add", no_space)
    for _ in range(3):
        recorder.picture(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert recorder.close() is None and isinstance(recorder.failure, MediaError)
    assert not (tmp_path / "a.mp4").exists()
    with pytest.raises(MediaError, match="cannot be written"):
        opened(tmp_path / "nowhere" / "a.mp4")


def test_a_slow_disk_makes_nobody_wait(tmp_path, monkeypatch):
    recorder = opened(tmp_path / "a.mp4")
    monkeypatch.setattr(recorder._file, "add", lambda *_: time.sleep(0.001))
    began = time.monotonic()
    for _ in range(700):
        recorder.picture(np.zeros((2, 2, 3), np.uint8))
    assert time.monotonic() - began < 0.5 and recorder.lost > 0
    recorder.close()


def test_a_disk_that_hangs_makes_nobody_wait_at_the_end(tmp_path, monkeypatch):
    recorder = opened(tmp_path / "a.mp4")
    works_again = threading.Event()
    monkeypatch.setattr(recorder._file, "add", lambda *_: works_again.wait())
    for _ in range(700):
        recorder.picture(np.zeros((2, 2, 3), np.uint8))
    assert recorder.close(0.2) is None and "the disk hangs" in str(recorder.failure)
    works_again.set()
    wait_until((tmp_path / "a.mp4").exists)  # nothing that was recorded is thrown away


def test_a_disk_that_hangs_keeps_no_place_taken(disk, monkeypatch):
    monkeypatch.setattr(calls, "ENDING", 0.3)
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        (call,) = client.app.state.calls.active.values()
        client.portal.start_task_soon(client.app.state.calls.record, call, True)
        assert client.post(f"{path}/end").status_code == 200 and not client.app.state.calls.active
        disk.set()
        time.sleep(0.3)  # what has waited for it goes on
        wait_until(nothing_is_written)
        assert call.recorder is None and not list(client.app.state.calls.recordings._folder.iterdir())


def test_whatever_hangs_a_call_is_over_in_time(disk, monkeypatch):
    """All of it at once: the conversation, the disk and the line."""
    assert recording.HANGS < calls.ENDING
    monkeypatch.setattr(calls, "ENDING", 2.0)
    signalling, released = FakeSignalling(), asyncio.Event()

    async def stays(connection, call):
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    with TestClient(fake_app(stays, lambda: signalling), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/offer", json=OFFER)
        (call,) = client.app.state.calls.active.values()
        client.portal.start_task_soon(client.app.state.calls.record, call, True)
        signalling.connection.disconnect = released.wait
        began = time.monotonic()
        assert client.post(f"{path}/end").json() == {"finished": []}
        assert time.monotonic() - began < 4 and not client.app.state.calls.active
        client.portal.call(released.set)


def test_a_disk_that_hangs_when_a_call_begins_does_not_hold_it_up(disk, tmp_path):
    began = threading.Event()

    async def make_call(connection, call):
        began.set()
        await wait_for_ever(connection, call)

    with TestClient(fake_app(make_call, record=tmp_path), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/offer", json=OFFER)
        assert began.wait(10)
        feed(client)
        disk.set()
        client.post(f"{path}/end")
    (kept,) = tmp_path.iterdir()
    assert kept.suffixes == [".mp4"] and len(decode(kept)[0]) == 30, "what came before the file was there"


def test_the_button_says_that_the_disk_hangs(disk, monkeypatch):
    monkeypatch.setattr(recording, "OPENS", 0.2)
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        refused = client.post(f"{path}/recording", json={"on": True})
        assert refused.status_code == 507 and "the disk hangs" in refused.json()["detail"]
        assert client.post(f"{path}/report", json={}).json()["recording"] is False
        assert 'errors_total{where="recording"} 1.0' in client.get("/metrics").text
        disk.set()
        wait_until(nothing_is_written)
        assert not list(client.app.state.calls.recordings._folder.iterdir())
        monkeypatch.undo()
        assert client.post(f"{path}/recording", json={"on": True}).json() == {"recording": True, "finished": None}
        assert client.post(f"{path}/recording", json={"on": False}).json()["finished"]


def test_the_button_says_that_there_is_no_file(monkeypatch):
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        with monkeypatch.context() as broken:
            broken.setattr(recording, "_File", no_space)
            refused = client.post(f"{path}/recording", json={"on": True})
        assert refused.status_code == 507 and "No space left" in refused.json()["detail"]
        assert 'errors_total{where="recording"} 1.0' in client.get("/metrics").text
        assert client.post(f"{path}/recording", json={"on": True}).json() == {"recording": True, "finished": None}


def test_mixing():
    mixer = Mixer(("a", "b"))
    mixer.add("a", np.full(1600, 0.5, np.float32), 0.0)
    mixer.add("b", np.full(1600, 0.75, np.float32), 0.05)  # early enough to go on from 0
    assert mixer.take(0.05) == pytest.approx(np.ones(800))
    mixer.add("a", np.full(800, 0.25, np.float32), 0.5)  # a pause before it
    mixer.add("b", np.full(1600, 0.25, np.float32), 0.02)  # goes on at 0.1, however early it comes
    assert mixer.end == pytest.approx(0.55)
    rest = mixer.take(1.0)
    assert len(rest) == 15200
    assert rest[:800] == pytest.approx(1) and rest[800:2400] == pytest.approx(0.25) and not rest[2400:7200].any()
    assert rest[7200:8000] == pytest.approx(0.25) and not rest[8000:].any()
    mixer.add("a", np.full(1600, 0.5, np.float32), 0.9)  # all of it was taken already
    assert mixer.take(1.1) == pytest.approx(np.zeros(1600))


def feed(client):
    (call,) = client.app.state.calls.active.values()
    for _ in range(30):
        call.recorder.picture(np.zeros((SIZE, SIZE, 3), np.uint8))
        call.recorder.character(np.zeros(SAMPLES_PER_FRAME, np.float32))


def test_a_voice_that_was_held_up_is_in_time_again_after_a_pause():
    mixer, piece = Mixer(("user",)), np.full(SAMPLES_PER_FRAME, 0.2, np.float32)
    for index in range(100):
        # Half a second of pieces comes at once, and nothing is said from 2 s to 3 s.
        given = 1.0 if 0.5 <= index / 25 < 1.0 else index / 25
        mixer.add("user", piece * (not 2 <= index / 25 < 3), given)
    sound = mixer.take(4.0)
    heard = np.flatnonzero(sound[:: SAMPLE_RATE // 100] > 0.1) / 100
    assert heard[heard < 2.9].max() > 2.3, "it was late"
    assert abs(heard[heard > 2.9].min() - 3.0) < 0.15


def test_one_button_records():
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/offer", json=OFFER)
        assert client.post(f"{path}/recording", json={"on": True}).json() == {"recording": True, "finished": None}
        assert client.post(f"{path}/report", json={}).json()["recording"] is True
        feed(client)
        stopped = client.post(f"{path}/recording", json={"on": False}).json()
        file = client.get(f"/api/recordings/{stopped['finished']}")
        assert file.headers["content-type"] == "video/mp4" and file.content[4:8] == b"ftyp"
        assert client.post(f"{path}/end").json() == {"finished": [stopped["finished"]]}
        kept = client.app.state.calls.recordings.path(stopped["finished"])
    assert not kept.exists()  # nobody asked to keep it


def test_a_recording_that_has_failed_is_begun_anew(monkeypatch):
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/recording", json={"on": True})
        (call,) = client.app.state.calls.active.values()
        failed = call.recorder
        monkeypatch.setattr(failed._file, "add", no_space)
        feed(client)
        failed._thread.join()
        assert client.post(f"{path}/recording", json={"on": True}).json() == {"recording": True, "finished": None}
        assert call.recorder is not failed and list(failed.part.parent.iterdir()) == [call.recorder.part]
        first = client.post(f"{path}/recording", json={"on": False}).json()["finished"]
        client.post(f"{path}/recording", json={"on": True})
        second = client.post(f"{path}/recording", json={"on": False}).json()["finished"]
        assert client.post(f"{path}/end").json() == {"finished": [first, second]} and first != second


def test_what_users_have_recorded_is_deleted_after_an_hour(monkeypatch):
    with TestClient(fake_app(), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/recording", json={"on": True})
        feed(client)
        name = client.post(f"{path}/recording", json={"on": False}).json()["finished"]
        kept = client.app.state.calls.recordings.path(name)
        for on in (True, False):
            client.post(f"{path}/recording", json={"on": on})
        os.utime(kept, (0, 0))
        time.sleep(1.2)
        assert kept.exists(), "its call goes on"
        client.post(f"{path}/end")
        os.utime(kept, (0, 0))
        end = time.monotonic() + 10
        while kept.exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert client.get(f"/api/recordings/{name}").status_code == 404


def test_a_disk_that_hangs_keeps_nobody_from_being_missed(monkeypatch):
    works_again, asked = threading.Event(), threading.Event()
    monkeypatch.setattr(recordings.Recordings, "clean", lambda *_: asked.set() or works_again.wait())
    with TestClient(fake_app(max_calls=2), base_url="http://localhost") as client:
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        for on in (True, False):
            client.post(f"{path}/recording", json={"on": on})
        assert asked.wait(10)
        monkeypatch.setattr(calls, "CONNECT", 0.1)
        wait_until(lambda: not client.app.state.calls.active)
        works_again.set()


def test_a_call_whose_end_hangs_keeps_no_other_from_being_missed(monkeypatch):
    works_again = threading.Event()
    monkeypatch.setattr(recordings.Recordings, "finish", lambda *_: works_again.wait() and None)
    with TestClient(fake_app(max_calls=2), base_url="http://localhost") as client:
        active = client.app.state.calls.active
        first = client.post("/api/calls", json=CHARACTER).json()["id"]
        client.post(f"/api/calls/{first}/recording", json={"on": True})
        monkeypatch.setattr(calls, "CONNECT", 0.1)
        try:
            wait_until(lambda: active[first].ending)
            client.post("/api/calls", json=CHARACTER)
            wait_until(lambda: set(active) == {first})
        finally:
            works_again.set()


def test_every_call_is_recorded_into_the_folder_and_closed_at_shutdown(tmp_path):
    (tmp_path / "calls").mkdir()
    with TestClient(fake_app(record=tmp_path / "calls"), base_url="http://localhost") as client:
        assert client.get("/api/config").json()["recorded"] is True
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/offer", json=OFFER)
        end = time.monotonic() + 10
        while not next(iter(client.app.state.calls.active.values())).recorder:
            assert time.monotonic() < end
            time.sleep(0.02)
        feed(client)
        assert client.post(f"{path}/recording", json={"on": False}).status_code == 403  # not the caller's to say
    (kept,) = (tmp_path / "calls").iterdir()
    assert kept.suffixes == [".mp4"] and len(decode(kept)[0]) == 30


def test_a_folder_that_has_gone_does_not_end_the_call(tmp_path, caplog):
    folder = tmp_path / "calls"
    folder.mkdir()
    with TestClient(fake_app(record=folder), base_url="http://localhost") as client:
        folder.rmdir()
        path = f"/api/calls/{client.post('/api/calls', json=CHARACTER).json()['id']}"
        client.post(f"{path}/offer", json=OFFER)
        end = time.monotonic() + 10
        while "cannot be written" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert client.post(f"{path}/report", json={}).json()["recording"] is False
        assert 'errors_total{where="recording"} 1.0' in client.get("/metrics").text
