"""The call behind the page with everything real but the models: pipecat, WebRTC, recording, stopwatch."""

import asyncio
import fractions
import subprocess
import sys
import time
from importlib.resources import files

import av
import numpy as np
import pytest
import webrtc_peer
from aiortc.mediastreams import AudioStreamTrack
from dropped_calls import NUMBER, leave_nothing
from fastapi.testclient import TestClient
from server_fakes import SHAPE, FakeModel
from webrtc_peer import Peer

from talkingmachines.conversation.options import CallOptions
from talkingmachines.media.audio import read_audio
from talkingmachines.server import calls as calls_module
from talkingmachines.server.app import build_app
from talkingmachines.server.config import ServerConfig
from talkingmachines.server.live import live_call
from talkingmachines.server.webrtc import WebRTCSignalling
from talkingmachines.types import SAMPLE_RATE

RECORDING = next(
    path for path in files("talkingmachines.assets.recordings").iterdir() if path.name == "en-allison-1.flac"
)


class Talker(AudioStreamTrack):
    """Someone who says a sentence after a second, and then is silent."""

    def __init__(self):
        super().__init__()
        speech = read_audio(RECORDING)[: 3 * SAMPLE_RATE]
        self._sound = np.concatenate(
            [np.zeros(SAMPLE_RATE, np.float32), speech, np.zeros(20 * SAMPLE_RATE, np.float32)]
        )
        self._said, self._began = 0, None

    async def recv(self):
        self._began = self._began or time.monotonic()
        await asyncio.sleep(max(0, self._began + self._said / SAMPLE_RATE - time.monotonic()))
        pcm = (self._sound[self._said :][:320] * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._said, fractions.Fraction(1, SAMPLE_RATE)
        self._said += 320
        return frame


async def watch(peer, seconds):
    """How many pictures come in so many seconds, after the first."""
    track, count = peer.tracks["video"], 0
    await asyncio.wait_for(track.recv(), 30)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.wait_for(track.recv(), 5)
        count += 1
    return count


def test_a_call_is_seen_measured_and_recorded(tmp_path):
    make_call = live_call(FakeModel(), 12, CallOptions(voice="echo"))
    app = build_app(ServerConfig(record=tmp_path), make_call, WebRTCSignalling, SHAPE)
    with TestClient(app, base_url="http://localhost") as client:
        peer = Peer(client, Talker)
        peer.connect()
        seen = peer.run(watch, peer, 8)
        figures = client.post(f"{peer.path}/report", json={"fps": 25}).json()
        metrics = client.get("/metrics").text
        ended = client.post(f"{peer.path}/end").json()
        peer.close()
        assert peer.call is None
    assert seen > 60  # 200 on a machine with time for it
    assert figures["first_frame"] > 0 and figures["chunk"] is not None and figures["recording"] is True
    assert "talkingmachines_frames_total 0.0" not in metrics
    (path,) = tmp_path.iterdir()
    assert [path.name] == ended["finished"]
    with av.open(str(path)) as file:
        pictures = [frame.to_ndarray(format="gray").mean() for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    assert len(pictures) > 100 and np.abs(sound).max() > 0.05
    assert max(pictures) > 60 and min(pictures) < 40


@pytest.mark.slow
def test_ten_calls_that_are_dropped_without_goodbye_leave_nothing(monkeypatch):
    """The callers are killed. No task, thread, socket, file, object or memory of a call is left."""
    monkeypatch.setattr(calls_module, "LOST", 1.0)

    def drop(link, wait):
        with subprocess.Popen([sys.executable, webrtc_peer.__file__, link, str(NUMBER)]) as callers:
            try:
                wait()
            finally:
                callers.kill()

    leave_nothing(drop, 20)
