"""Recordings of any common format, read as the one kind of speech that the package works with."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from talkingmachines.errors import MediaError
from talkingmachines.media.files import readable_file, reason
from talkingmachines.types import SAMPLE_RATE, SAMPLES_PER_FRAME

MAX_SECONDS = 2 * 3600
"""Longer recordings are refused: as float32 they would need more than half a gigabyte."""

MIN_RATE, MAX_RATE = 4_000, 768_000


def read_audio(path: str | Path) -> np.ndarray:
    """The sound of a recording or video: float32 [n], 16 kHz mono, in [-1, 1].

    Channels are averaged. Recordings that go over full scale are scaled down as a whole, and one shorter than a
    video frame (40 ms) is padded with silence to that length. Packets that cannot be decoded are skipped, as
    players do, unless they are the greater part of the file. Memory grows with the length of the sound alone.

    Raises MediaError (missing, a folder, unreadable, no sound in it, damaged, NaN or infinite samples, over 2 h).
    """
    path = readable_file(path, "a recording (WAV, MP3, FLAC, OGG, M4A, MP4, ...)")
    samples = bytearray()  # grows in place: no second copy of an hour of sound
    try:
        for block in _mono_blocks(path):
            if not np.isfinite(block).all():
                raise MediaError(f"{path}: holds NaN or infinite samples; export the recording again as 16-bit WAV")
            samples += block.tobytes()
    except (av.error.FFmpegError, OSError, ValueError, EOFError) as error:
        raise MediaError(
            f"{path}: cannot be read as sound ({reason(error)}); "
            "give a recording that plays in a media player, or convert it to WAV"
        ) from error
    if not samples:
        raise MediaError(f"{path}: holds no sound samples; give a recording with speech in it")
    if len(samples) < 4 * SAMPLES_PER_FRAME:
        samples += bytes(4 * SAMPLES_PER_FRAME - len(samples))
    speech = np.frombuffer(samples, dtype=np.float32)
    peak = max(float(speech.max()), -float(speech.min()))
    if peak > 1:
        speech /= np.float32(peak)
        np.clip(speech, -1, 1, out=speech)
    return speech


def _mono_blocks(path: Path) -> Iterator[np.ndarray]:
    """Decoded sound, block by block: float32 [n] at 16 kHz. A change of format within the file is followed."""
    resampler, source = None, None
    seconds = 0.0
    for frame in _decoded(path):
        rate = frame.sample_rate
        if not MIN_RATE <= rate <= MAX_RATE:
            raise MediaError(f"{path}: has a sample rate of {rate} Hz; save it with 16000 to 48000 Hz")
        seconds += frame.samples / rate
        if seconds > MAX_SECONDS:
            raise MediaError(f"{path}: is longer than {MAX_SECONDS // 3600} hours; cut it into shorter recordings")
        if source != (frame.format.name, frame.layout.name, rate):
            yield from _resampled(resampler, None)
            source = frame.format.name, frame.layout.name, rate
            # Interleaved: PyAV reads planes past the eighth channel from the wrong place.
            resampler = AudioResampler(format="flt", layout=frame.layout, rate=SAMPLE_RATE)
        frame.pts = None  # time stamps of damaged files jump; the samples alone give the time
        yield from _resampled(resampler, frame)
    yield from _resampled(resampler, None)


def _resampled(resampler: AudioResampler | None, frame: AudioFrame | None) -> Iterator[np.ndarray]:
    """What the resampler gives for one frame, or, for None, what it still holds; its channels averaged."""
    for block in resampler.resample(frame) if resampler else []:
        yield block.to_ndarray().reshape(-1, block.layout.nb_channels).mean(axis=1, dtype=np.float32)


def _decoded(path: Path) -> Iterator[AudioFrame]:
    """The frames of the first sound track. Raises MediaError when there is none or most of it is damaged."""
    # An open file and no protocols: a playlist or a path that looks like a URL cannot make FFmpeg open others.
    with path.open("rb") as file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: has no sound in it; give a recording, or a video that has sound")
        good = bad = 0
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                bad += 1
                continue
            good += len(frames)
            yield from frames
        if bad > good:
            raise MediaError(f"{path}: is damaged ({bad} parts cannot be decoded); get an undamaged copy")
