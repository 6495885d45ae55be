"""Over a real peer connection on loopback: pictures keep their time, and arrive with the sound that belongs to them."""

import asyncio
import itertools
import time

import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.contrib.media import MediaStreamError
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtp import RtcpSrPacket
from call_parts import PICTURE, Painter
from pipecat.frames.frames import OutputImageRawFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from talkingmachines.conversation.call import CallCounts
from talkingmachines.conversation.pipeline import build_worker
from talkingmachines.conversation.tracks import PIECE, PictureTrack, SoundTrack
from talkingmachines.conversation.video_service import AvatarVideoService
from talkingmachines.conversation.voices.voice import Voice
from talkingmachines.conversation.webrtc import AvatarWebRTCTransport
from talkingmachines.types import SAMPLE_RATE

BIG = 64


class BigPainter(Painter):
    """Bright while it speaks. Big enough for a codec."""

    def live(self, image: np.ndarray, seed: int = 0):
        call = super().live(image, seed)
        session = self.sessions[-1]
        plain = session.decode

        def decode(pcm: np.ndarray):
            sounds = pcm.reshape(-1, 640)
            frames = plain(pcm)
            for frame, sound in zip(frames, sounds, strict=True):
                pixels = np.full((BIG, BIG, 3), 220 if np.abs(sound).max() > 0.1 else 20, np.uint8)
                object.__setattr__(frame, "pixels", pixels)
            return frames

        session.decode = decode
        return call


class Peer:
    """A browser's place: notes when which brightness and loudness arrived, and what it was told of their times.

    reports: by kind, of each sender report both of its times, in seconds; stamps count from the first.
    """

    def __init__(self) -> None:
        self.reports: dict[str, list[tuple[float, float]]] = {"audio": [], "video": []}
        self._first: dict[str, int] = {}
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
        for transceiver in self.connection.getTransceivers():
            self._note_reports(transceiver.kind, transceiver.receiver)
        await self.connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

    def _note_reports(self, kind: str, receiver) -> None:
        rate = {"audio": 48_000, "video": 90_000}[kind]
        handle_rtp, handle_rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

        def seconds(stamp: int) -> float:
            return ((stamp - self._first[kind] + 2**31) % 2**32 - 2**31) / rate

        async def rtp(packet, arrival_time_ms: int) -> None:
            self._first.setdefault(kind, packet.timestamp)
            await handle_rtp(packet, arrival_time_ms)

        async def rtcp(packet) -> None:
            if isinstance(packet, RtcpSrPacket) and kind in self._first:
                info = packet.sender_info
                self.reports[kind].append((info.ntp_timestamp / 2**32, seconds(info.rtp_timestamp)))
            await handle_rtcp(packet)

        receiver._handle_rtp_packet, receiver._handle_rtcp_packet = rtp, rtcp

    async def close(self) -> None:
        await self.connection.close()
        for reader in self._readers:
            reader.cancel()


async def called(during, counts: CallCounts | None = None) -> Peer:
    """A call, with what its peer saw and heard: `during` is what happens in it, given the pipeline's worker."""
    counts = counts or CallCounts()
    peer, connection = Peer(), SmallWebRTCConnection()
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
    await during(worker)
    await worker.cancel()
    await run
    await peer.close()
    return peer


async def speak_twice(worker) -> None:
    tone = (np.sin(np.arange(SAMPLE_RATE) * 2 * np.pi * 300 / SAMPLE_RATE) * 20000).astype("<i2")
    for _ in range(2):
        await worker.queue_frames([TTSAudioRawFrame(tone.tobytes(), SAMPLE_RATE, 1), TTSStoppedFrame()])
        await asyncio.sleep(3)


def test_pictures_and_sound_arrive_together() -> None:
    counts = CallCounts()
    peer = asyncio.run(called(speak_twice, counts))
    bright = _onsets(peer.bright, 120)
    loud = _onsets(peer.loud, 5000)
    assert len(bright) == len(loud) == 2
    # The receiver holds sound back by a few packets; and both ends and their codecs share one event loop here. What a
    # call reaches is measured with a browser.
    assert all(-0.1 < heard - seen < 0.4 for seen, heard in zip(bright, loud, strict=True))
    assert len(counts.av_offsets) > 40 and np.median(np.abs(list(counts.av_offsets))) < 0.3
    assert peer.stamps == sorted(peer.stamps)
    seconds = peer.bright[-1][0] - peer.bright[0][0]
    assert peer.stamps[-1] - peer.stamps[0] == pytest.approx(seconds, rel=0.08), "stamped with the real time"
    assert len(peer.bright) / seconds > 15


def test_slow_encoding_does_not_move_the_pictures_against_the_sound(monkeypatch) -> None:
    """By its reports a sender says what time its stamps are; a browser shows pictures and plays sound by that."""
    encode, encoded = Vp8Encoder.encode, itertools.count()

    def slowly(self, *given):
        time.sleep(0.2 * (next(encoded) // 8 % 2))
        return encode(self, *given)

    monkeypatch.setattr(Vp8Encoder, "encode", slowly)
    peer = asyncio.run(called(lambda _: asyncio.sleep(9)))
    assert min(len(peer.reports[kind]) for kind in peer.reports) > 5
    for kind, reports in peer.reports.items():
        begun = [at - stamp for at, stamp in reports]
        assert max(begun) - min(begun) < 0.005, f"{kind}: all reports speak of one clock"


def test_sound_that_is_late_is_not_sent_in_a_burst() -> None:
    """A browser would hold all sound back from then on, by as much as it was late, and pictures follow only slowly."""
    said = np.arange(1, 8 * PIECE + 1).astype("<i2").tobytes()

    async def whole() -> tuple[list[float], list[float]]:
        sound, clock = SoundTrack(), [0.0]
        sound.now = lambda: clock[0]  # type: ignore[method-assign]
        speaking = asyncio.create_task(sound.add_audio_bytes(said))
        await asyncio.sleep(0)
        stamps, dues = [], []
        # A little late it catches up; after a standstill it does not.
        for clock[0] in (0.0, 0.02, 0.1, 0.1, 0.1, 0.1, 0.72, 0.72, 0.74):
            dues.append(sound.next_due())
            packet = await sound.recv()
            stamps.append(float(packet.pts * packet.time_base))
        await asyncio.wait_for(speaking, 1)
        return stamps, dues

    stamps, dues = asyncio.run(whole())
    assert stamps == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.72, 0.74, 0.76])
    # A picture's stamp: where the sound that follows it goes on, behind the 160 ms that wait.
    assert dues[:7] == pytest.approx([0.16, 0.16, 0.16, 0.16, 0.16, 0.16, 0.72])


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


def test_a_peer_that_never_reads_gets_the_latest_picture() -> None:
    async def whole() -> None:
        track = PictureTrack(SoundTrack())
        for shade in range(100):
            track.add_video_frame(OutputImageRawFrame(bytes([shade]) * (BIG * BIG * 3), (BIG, BIG), "RGB"))
        assert int((await track.recv()).to_ndarray(format="rgb24").mean()) == 99
        waiting = asyncio.create_task(track.recv())
        await asyncio.sleep(0)
        track.stop()
        with pytest.raises(MediaStreamError):
            await waiting

    asyncio.run(whole())
