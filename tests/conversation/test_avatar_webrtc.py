"""Over a real peer connection on loopback: pictures keep their time, and arrive with the sound that belongs to them."""

import asyncio

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaStreamError
from aiortc.mediastreams import AudioStreamTrack
from call_parts import PICTURE, Painter
from pipecat.frames.frames import OutputImageRawFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from talkingmachines.conversation.call import CallCounts
from talkingmachines.conversation.pipeline import build_worker
from talkingmachines.conversation.video_service import AvatarVideoService
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.conversation.webrtc import WAITING, AvatarWebRTCTransport, LiveVideoTrack
from talkingmachines.types import SAMPLE_RATE

BIG = 64


class BigPainter(Painter):
    """Bright while it speaks. Big enough for a codec."""

    def live(self, image: np.ndarray, seed: int = 0):
        call = super().live(image, seed)
        session = self.sessions[-1]
        plain = session.push_audio

        def push_audio(pcm: np.ndarray):
            sounds = pcm.reshape(-1, 640)
            frames = plain(pcm)
            for frame, sound in zip(frames, sounds, strict=True):
                pixels = np.full((BIG, BIG, 3), 220 if np.abs(sound).max() > 0.1 else 20, np.uint8)
                object.__setattr__(frame, "pixels", pixels)
            return frames

        session.push_audio = push_audio
        return call


class Peer:
    """A browser's place: notes when which brightness and loudness arrived."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection()
        self.connection.addTrack(AudioStreamTrack())
        self.connection.addTransceiver("video", direction="recvonly")
        self.bright: list[tuple[float, float]] = []
        self.loud: list[tuple[float, float]] = []
        self.stamps: list[float] = []
        self._readers: list[asyncio.Task[None]] = []
        self.connection.on("track", lambda track: self._readers.append(asyncio.create_task(self._read(track))))

    async def _read(self, track) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.bright.append((clock(), float(frame.to_ndarray(format="gray").mean())))
                    self.stamps.append(float(frame.pts * frame.time_base))
                else:
                    self.loud.append((clock(), float(np.abs(frame.to_ndarray().astype(int)).max())))
        except MediaStreamError:
            return

    async def call(self, connection: SmallWebRTCConnection) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        await connection.initialize(sdp=self.connection.localDescription.sdp, type="offer")
        answer = connection.get_answer()
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

    async def close(self) -> None:
        await self.connection.close()
        for reader in self._readers:
            reader.cancel()


def test_pictures_and_sound_arrive_together() -> None:
    counts = CallCounts()

    async def whole() -> Peer:
        peer = Peer()
        connection = SmallWebRTCConnection()
        transport = AvatarWebRTCTransport(connection, (BIG, BIG), counts)
        video = AvatarVideoService(BigPainter(), PICTURE, counts=counts)
        worker = build_worker(transport, Voice(before=[]), video)
        connected = asyncio.Event()

        @transport.event_handler("on_client_connected")
        async def come(*_: object) -> None:
            connected.set()

        await peer.call(connection)
        run = asyncio.create_task(_run(worker))
        await asyncio.wait_for(connected.wait(), 20)
        await asyncio.sleep(1.5)
        tone = (np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 300 / SAMPLE_RATE) * 20000).astype("<i2")
        for _ in range(2):
            await worker.queue_frames([TTSAudioRawFrame(tone.tobytes(), SAMPLE_RATE, 1), TTSStoppedFrame()])
            await asyncio.sleep(3)
        await worker.cancel()
        await run
        await peer.close()
        return peer

    peer = asyncio.run(whole())
    bright = _onsets(peer.bright, 120)
    loud = _onsets(peer.loud, 5000)
    assert len(bright) == len(loud) == 2
    # The receiver holds sound back by a few packets; and both ends and their codecs share one event loop here. What a
    # call reaches is measured with a browser.
    assert all(-0.1 < heard - seen < 0.4 for seen, heard in zip(bright, loud, strict=True))
    assert len(counts.av_offsets) > 40 and np.median(np.abs(list(counts.av_offsets))) < 0.1
    assert peer.stamps == sorted(peer.stamps)
    seconds = peer.bright[-1][0] - peer.bright[0][0]
    assert peer.stamps[-1] - peer.stamps[0] == pytest.approx(seconds, rel=0.08), "stamped with the real time"
    assert len(peer.bright) / seconds > 15


def _onsets(values: list[tuple[float, float]], threshold: float) -> list[float]:
    """Times at which the value rises over the threshold after half a second below."""
    found, below_since = [], -10.0
    was = False
    for at, value in values:
        is_over = value > threshold
        if is_over and not was and at - below_since > 0.5:
            found.append(at)
        if not is_over and was:
            below_since = at
        was = is_over
    return found


async def _run(worker) -> None:
    from pipecat.workers.runner import WorkerRunner

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def test_a_peer_that_never_reads_costs_two_pictures() -> None:
    async def whole() -> None:
        track = LiveVideoTrack()
        for shade in range(100):
            track.add_video_frame(OutputImageRawFrame(bytes([shade]) * (BIG * BIG * 3), (BIG, BIG), "RGB"))
        shades = [int((await track.recv()).to_ndarray(format="rgb24").mean()) for _ in range(WAITING)]
        assert shades == [98, 99]
        waiting = asyncio.create_task(track.recv())
        await asyncio.sleep(0)
        track.stop()
        with pytest.raises(MediaStreamError):
            await waiting

    asyncio.run(whole())
