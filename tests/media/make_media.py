import struct
from pathlib import Path

import av
import numpy as np


def tone(seconds: float, rate: int, hertz: float = 300.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_sound(path: Path, codec: str, rate: int, layout: str, samples: np.ndarray) -> Path:
    """The same samples in every channel, through a real encoder."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        frame = av.AudioFrame.from_ndarray(np.repeat(samples[None], channels, 0), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def wav_bytes(samples: np.ndarray, rate: int, channels: int = 1) -> bytes:
    """A plain RIFF header of our own: the reader is not tested with the library that it reads with."""
    kind, bits = (3 if samples.dtype.kind == "f" else 1), samples.dtype.itemsize * 8
    step = channels * bits // 8
    body = samples.tobytes()
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * step, step, bits)
    head = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(body))
    return b"RIFF" + struct.pack("<I", len(head) + len(body)) + head + body
