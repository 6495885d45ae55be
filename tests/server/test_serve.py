import json
import logging
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from talkingmachines.errors import ConfigError
from talkingmachines.server.capacity import calls_that_fit
from talkingmachines.server.config import ServerConfig
from talkingmachines.server.logs import JsonLines, Plain, _from_loguru, call_id
from talkingmachines.server.serve import bind
from talkingmachines.server.timing import ChunkTimes, TimedCharacter
from talkingmachines.types import VideoFrame

SERVER = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from server_fakes import SHAPE, FakeSignalling, wait_for_ever

from talkingmachines.server.app import build_app
from talkingmachines.server.config import ServerConfig
from talkingmachines.server.logs import set_up_logging
from talkingmachines.server.serve import bind, serve

listener, config = bind(ServerConfig(port=0, record=Path(sys.argv[2])))
set_up_logging(json_lines=True)
app = build_app(config, wait_for_ever, FakeSignalling, SHAPE)
serve(app, listener, lambda: print(config.link, flush=True))
"""


HANGING = """
import threading

from talkingmachines.server import calls, recording
from talkingmachines.server.recordings import Recordings

calls.ENDING, recording.HANGS = 2.0, 1.0
recording._File = Recordings.clean = Recordings.close = lambda *_: threading.Event().wait()
Recordings.passing = True
"""


def ask(link, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(link + path, data), timeout=20) as answer:
        return json.load(answer)


def why_it_ended(link, call):
    for _ in range(200):
        try:
            ask(link, f"api/calls/{call}/report", {})
        except urllib.error.HTTPError as refused:
            return json.load(refused)["detail"]
    return None


@pytest.mark.parametrize(("how", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGINT, 2)])
def test_told_to_stop_it_ends_calls_and_closes_recordings(tmp_path, how, times):
    command = [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        link = server.stdout.readline().strip()
        assert link.startswith("http://localhost:")
        call = ask(link, "api/calls", {"character": "character:red-scarf"})["id"]
        ask(link, f"api/calls/{call}/offer", {"type": "offer", "sdp": "v=0"})
        ask(link, f"api/calls/{call}/recording", {"on": True})
        for _ in range(times):
            server.send_signal(how)
            time.sleep(0.1)
        assert why_it_ended(link, call) == "the server was stopped"
        _, log = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode in (0, -how)
    assert [path.suffixes for path in tmp_path.iterdir()] == [[".mp4"]]
    lines = [json.loads(line) for line in log.splitlines()]
    assert "error" not in {line["level"] for line in lines}
    ended = [line for line in lines if line["message"] == "the call has ended: the server was stopped"]
    assert len(ended) == 1 and ended[0]["call"] == call[:8] and ended[0]["level"] == "info"


def test_told_to_stop_it_ends_though_the_disk_hangs(tmp_path):
    command = [sys.executable, "-c", HANGING + SERVER, str(Path(__file__).parent), str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        link = server.stdout.readline().strip()
        call = ask(link, "api/calls", {"character": "character:red-scarf"})["id"]
        ask(link, f"api/calls/{call}/offer", {"type": "offer", "sdp": "v=0"})
        time.sleep(1.5)  # it has begun to clean
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    finally:
        server.kill()
    assert "the disk hangs" in log and "the call has ended: the server was stopped" in log


def test_a_port_that_is_taken_is_said_at_once():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="--port"):
            bind(ServerConfig(port=other.getsockname()[1]))
    first, taken = bind(ServerConfig(port=0))
    with first, pytest.raises(ConfigError, match="--port"):
        bind(ServerConfig(port=taken.port))
    with pytest.raises(ConfigError, match="--host"):
        bind(ServerConfig("192.0.2.250"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"port": 70_000}, "70000"),
        ({"max_calls": 0}, "--max-calls"),
        ({"public_url": "call.example.org"}, "https"),
        ({"public_url": "https://"}, "--public-url"),
        ({"public_url": "https://call.example.org:port"}, "--public-url"),
        ({"ice_servers": ("turn:x",)}, "urls"),
    ],
)
def test_wrong_settings(wrong, words):
    with pytest.raises(ConfigError, match=words):
        ServerConfig(**wrong)


def test_logs_say_which_call():
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "%s left", ("somebody",), None)
    token = call_id.set("c4ll")
    try:
        line = json.loads(JsonLines().format(record))
        assert (line["call"], line["level"], line["message"]) == ("c4ll", "warning", "somebody left")
        assert "[c4ll] W somebody left" in Plain().format(record)
    finally:
        call_id.reset(token)
    assert "call" not in json.loads(JsonLines().format(record))


def test_a_giant_message_is_cut_in_the_log(caplog):
    """Pipecat logs what it cannot read, as long as a caller likes to make it."""
    loguru = pytest.importorskip("loguru", reason="needs the [call] extra")
    sink = loguru.logger.add(_from_loguru, format="{message}")
    loguru.logger.error("no JSON: " + "x" * 60_000)
    loguru.logger.remove(sink)
    assert 100 < len(caplog.records[-1].getMessage()) < 1100


class FakeSession:
    """Makes chunks of 12 frames, each of which takes `spent` seconds of a clock that the test turns."""

    samples_wanted, samples_ahead = 12 * 640, 0

    def __init__(self, clock, spent):
        self._clock, self._spent = clock, spent

    def denoise(self, pcm, coming):
        return pcm

    def decode(self, latents):
        self._clock[0] += self._spent
        return [VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)] * 12

    def close(self):
        pass


class FakeModel:
    shape = 2, 2

    def __init__(self, clock, spent):
        self.session = lambda image, seed=0, **_: FakeSession(clock, spent)


@pytest.mark.parametrize(("spent", "calls"), [(0.01, 33), (0.1, 3), (0.3, 1), (0.48, 1), (2.0, 1)])
def test_as_many_calls_as_keep_up(spent, calls):
    clock = [0.0]
    count, measured = calls_that_fit(FakeModel(clock, spent), np.zeros((2, 2, 3), np.uint8), 3, lambda: clock[0])
    assert count == calls and measured == pytest.approx(spent / 0.48)


def test_chunks_are_timed():
    times, pictures = ChunkTimes(), []
    call = TimedCharacter(FakeModel([0.0], 0.1), 12, times).live(np.zeros((2, 2, 3), np.uint8))
    for frame in call.frames():
        pictures.append(frame.pixels)
        if len(pictures) == 13:
            call.close()
    assert times.total == len(times.latest) >= 2
