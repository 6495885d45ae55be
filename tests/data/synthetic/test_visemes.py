"""Mouth tracks: closures, silence, coarticulation and the tie to loudness."""

import numpy as np
import pytest

from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.sound import (
    SPEECH_LEVEL,
    loudness,
    resample,
    smooth,
)
from talkingmachines.data.synthetic.visemes import LEAD, Phone, mouth_track, phones_of_ipa, visemes_of_ipa
from talkingmachines.evaluation.scores import envelope_r
from talkingmachines.types import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME


def _padded(samples: np.ndarray) -> tuple[np.ndarray, int]:
    count = -(-len(samples) // SAMPLES_PER_FRAME)
    return np.pad(samples, (0, count * SAMPLES_PER_FRAME - len(samples))), count


def _hum(seconds: float) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (SPEECH_LEVEL * np.sqrt(2) * np.sin(2 * np.pi * 200 * times)).astype(np.float32)


def test_every_closure_shuts_the_lips(heldout_bank: SpeechBank) -> None:
    closures = 0
    for spoken in heldout_bank.utterances:
        samples, count = _padded(spoken.samples)
        track, bilabial = mouth_track(spoken.phones, samples, count)
        assert (track[bilabial, 0] == 0).all()
        for phone in spoken.phones:
            if phone.symbol == "PP" and phone.end - LEAD > 0.04:
                closures += 1
                first, last = (phone.end - 0.07 - LEAD) * FPS - 0.5, (phone.end - LEAD) * FPS - 0.5
                frames = [t for t in range(count) if first - 0.5 <= t <= last + 0.5]
                assert any(bilabial[t] for t in frames), (spoken.text, phone)
    assert closures > 30


@pytest.mark.parametrize("offset", np.linspace(0, 0.04, 9))
@pytest.mark.parametrize("length", [0.03, 0.08])
def test_a_closure_is_seen_wherever_it_falls_between_frames(offset: float, length: float) -> None:
    start = 0.5 + offset
    phones = [Phone("AA", 0, start), Phone("PP", start, start + length), Phone("AA", start + length, 1.2)]
    track, bilabial = mouth_track(phones, _hum(1.2), 30)
    assert bilabial.sum() >= (2 if length == 0.08 else 1)
    assert (track[:, 0] == 0)[bilabial].all()
    near = round(start * FPS)
    assert track[near - 5, 0] > 0.6 and track[near + 6, 0] > 0.6


def test_silence_is_shut_and_still() -> None:
    track, bilabial = mouth_track([], np.zeros(SAMPLE_RATE, np.float32), 25)
    assert (track == 0).all() and not bilabial.any()


def test_lips_rest_in_a_pause() -> None:
    phones = [Phone("AA", 0.2, 0.6), Phone("sil", 0.6, 1.1), Phone("AE", 1.1, 1.5)]
    track, _ = mouth_track(phones, _hum(2.0), 50)
    assert (track[18:25, 0] == 0).all()
    assert track[10, 0] > 0.6 and track[32, 0] > 0.6
    assert (track[44:, 0] == 0).all() and (track[:2, 0] == 0).all()


def test_lips_lead_the_sound() -> None:
    phones = [Phone("AA", 0.6, 1.0)]
    track, _ = mouth_track(phones, _hum(1.6), 40)
    opening = np.interp(np.linspace(0, 1.6, 1600), (np.arange(40) + 0.5) / FPS, track[:, 0])
    rising = np.flatnonzero(opening > 0.5 * opening.max())[0] / 1000
    falling = np.flatnonzero(opening > 0.5 * opening.max())[-1] / 1000
    assert 0.0 < 0.6 - rising < 0.08
    assert 0.0 < 1.0 - falling + 0.05 < 0.1


def test_shapes_differ_and_flow() -> None:
    phones = [Phone("IH", 0.2, 0.6), Phone("OU", 0.6, 1.0), Phone("SS", 1.0, 1.3)]
    track, _ = mouth_track(phones, _hum(1.6), 40)
    opening, wide, rounded, teeth, _ = track.T
    assert wide[10] > 0.5 and wide[20] < -0.4 and rounded[20] > 0.6 and rounded[10] < 0.2 and teeth[28] > 0.6
    assert np.abs(np.diff(wide)).max() < 0.4
    assert opening[10] > opening[28]


def test_louder_speech_opens_wider() -> None:
    phones = [Phone("AA", 0.0, 2.0)]
    swell = np.repeat([0.2, 1.0], SAMPLE_RATE).astype(np.float32)
    track, _ = mouth_track(phones, _hum(2.0) * swell, 50)
    assert track[37, 0] > 1.3 * track[12, 0] > 0.3


def test_opening_follows_the_envelope(heldout_bank: SpeechBank) -> None:
    values, peaks = [], []
    for spoken in heldout_bank.utterances:
        samples, count = _padded(spoken.samples)
        track, _ = mouth_track(spoken.phones, samples, count)
        values.append(envelope_r(track[:, 0], samples, 0)[0])
        peaks.append(np.percentile(track[:, 0], 95))
    assert np.mean(values) > 0.75
    assert 0.5 < np.mean(peaks) < 0.9


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("ˈɑː", ["AA"]),
        ("aɪ", ["AA", "IH"]),
        ("tʃ", ["CH"]),
        ("dʒ", ["CH"]),
        ("m", ["PP"]),
        ("əl", ["UH", "LL"]),
        ("ɔːɹ", ["OH", "RR"]),
        ("ː", []),
        ("", []),
    ],
)
def test_ipa_becomes_visemes(symbol: str, expected: list[str]) -> None:
    assert visemes_of_ipa(symbol) == expected


def test_diphthongs_share_their_time() -> None:
    assert phones_of_ipa("aʊ", 1.0, 1.2) == [Phone("AA", 1.0, 1.1), Phone("OU", 1.1, 1.2)]
    assert phones_of_ipa("", 1.0, 1.2) == [Phone("sil", 1.0, 1.2)]


def test_resample_keeps_tones_and_length() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(22050) / 22050).astype(np.float32)
    out = resample(tone, 16000 / 22050)
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert len(out) == 16000
    np.testing.assert_allclose(out[500:-500], expected[500:-500], atol=2e-3)


def test_loudness_is_the_rms_around_each_instant() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=1600).astype(np.float32)
    assert loudness(samples)[5] == pytest.approx(np.sqrt(np.mean(samples[680:1080].astype(float) ** 2)))
    assert smooth(np.ones((9, 2)), 2.0) == pytest.approx(np.ones((9, 2)))
