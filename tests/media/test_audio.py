import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_media import tone, wav_bytes, write_sound

from talkingmachines.errors import MediaError
from talkingmachines.media import audio, read_audio, write_video

FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def loudness(samples):
    return float(np.sqrt(np.mean(samples[1000:-1000] ** 2)))


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.wav", "pcm_s16le", 8_000, "mono"),
        ("a.wav", "pcm_f32le", 96_000, "stereo"),
        ("a.wav", "pcm_s24le", 44_100, "stereo"),
        ("a.wav", "pcm_f64le", 48_000, "5.1"),
        ("a.wav", "pcm_u8", 11_025, "mono"),
        ("a.mp3", "libmp3lame", 44_100, "stereo"),
        ("a.flac", "flac", 48_000, "stereo"),
        ("a.ogg", "libopus", 48_000, "mono"),
        ("a.m4a", "aac", 44_100, "stereo"),
    ],
)
def test_every_common_format_gives_the_same_sound(tmp_path, name, codec, rate, layout):
    path = write_sound(tmp_path / name, codec, rate, layout, tone(1.0, rate))
    speech = read_audio(path)
    assert speech.dtype == np.float32
    assert abs(len(speech) - 16_000) < 640
    n = min(len(speech), 16_000)
    spectrum = np.abs(np.fft.rfft(speech[:n] * np.hanning(n)))
    assert abs(spectrum.argmax() * 16_000 / n - 300) < 2
    assert loudness(speech) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_16_bit_at_16_khz_comes_through_exactly(tmp_path):
    values = np.random.default_rng(0).integers(-32768, 32767, 4_000).astype("<i2")
    (tmp_path / "a.wav").write_bytes(wav_bytes(values, 16_000))
    assert np.array_equal(read_audio(tmp_path / "a.wav"), values.astype(np.float32) / 32768)


@pytest.mark.parametrize("channels", [2, 3, 7, 9, 12, 40])
def test_channels_are_averaged(tmp_path, channels):
    values = np.random.default_rng(channels).integers(-20000, 20000, (2_000, channels)).astype("<i2")
    (tmp_path / "a.wav").write_bytes(wav_bytes(values, 16_000, channels))
    expected = values.astype(np.float64).mean(axis=1) / 32768
    assert np.abs(read_audio(tmp_path / "a.wav") - expected).max() < 1e-6


def test_over_full_scale_is_scaled_not_clipped(tmp_path):
    samples = tone(0.5, 16_000) * 6
    (tmp_path / "a.wav").write_bytes(wav_bytes(samples, 16_000))
    assert np.allclose(read_audio(tmp_path / "a.wav"), samples / np.abs(samples).max(), atol=1e-6)


def test_sound_of_a_video(tmp_path):
    speech = tone(2.0, 16_000)
    frames = (np.full((32, 32, 3), i, np.uint8) for i in range(50))
    write_video(tmp_path / "a.mp4", frames, 25, speech, {})
    heard = read_audio(tmp_path / "a.mp4")[: len(speech)]
    assert np.corrcoef(heard[500:-500], speech[500:-500])[0, 1] > 0.99


@pytest.mark.parametrize(("count", "expected"), [(1, 640), (639, 640), (640, 640), (800, 800)])
def test_short_recordings_are_padded_to_one_frame(tmp_path, count, expected):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.full(count, 9000, "<i2"), 16_000))
    speech = read_audio(tmp_path / "a.wav")
    assert len(speech) == expected
    assert (speech[:count] > 0).all()
    assert not speech[count:].any()


@pytest.mark.slow
def test_an_hour_is_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros(3600 * 4_000, np.uint8), 4_000))
    assert len(read_audio(tmp_path / "a.wav")) == 3600 * 16_000


def test_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros(5 * 4_000, np.uint8), 4_000))
    monkeypatch.setattr(audio, "MAX_SECONDS", 5.1)
    assert len(read_audio(tmp_path / "a.wav")) == 5 * 16_000
    monkeypatch.setattr(audio, "MAX_SECONDS", 4.9)
    with pytest.raises(MediaError, match="longer than"):
        read_audio(tmp_path / "a.wav")


def bad_recordings(folder):
    """name -> what the message must say"""
    nan, inf = tone(0.2, 16_000), tone(0.2, 44_100)
    nan[100], inf[100] = np.nan, -np.inf
    files = {
        "nan.wav": wav_bytes(nan, 16_000),
        "inf.wav": wav_bytes(inf, 44_100),
        "none.wav": wav_bytes(np.zeros(0, "<i2"), 16_000),
        "empty.wav": b"",
        "text.txt": b"Not a recording.\n" * 50,
        "noise.wav": np.random.default_rng(0).bytes(20_000),
        "slow.wav": wav_bytes(np.zeros(1000, "<i2"), 1),
        "list.m3u8": f"#EXTM3U\n#EXTINF:5,\n{folder}/nan.wav\n#EXT-X-ENDLIST\n".encode(),
        "list.txt": f"ffconcat version 1.0\nfile {folder}/nan.wav\n".encode(),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    whole = write_sound(folder / "whole.m4a", "aac", 44_100, "mono", tone(1.0, 44_100)).read_bytes()
    (folder / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    write_video(folder / "silent.mp4", [np.zeros((32, 32, 3), np.uint8)], 25, None, {})
    return {
        "nan.wav": "NaN",
        "inf.wav": "infinite",
        "none.wav": "no sound samples",
        "empty.wav": "empty",
        "text.txt": "no sound in it",
        "noise.wav": "cannot be read as sound",
        "slow.wav": "sample rate of 1 Hz",
        "list.m3u8": "cannot be read as sound",
        "list.txt": "cannot be read as sound",
        "cut.m4a": "cannot be read as sound",
        "silent.mp4": "no sound in it",
        "missing.wav": "no such file",
        ".": "is a folder",
    }


def test_each_bad_recording_says_what_is_wrong(tmp_path):
    for name, words in bad_recordings(tmp_path).items():
        with pytest.raises(MediaError, match=words) as caught:
            read_audio(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def array_or_media_error(path):
    try:
        speech = read_audio(path)
    except MediaError:
        return
    assert speech.dtype == np.float32
    assert speech.ndim == 1
    assert len(speech) >= 640
    assert np.isfinite(speech).all()
    assert np.abs(speech).max() <= 1


@FUZZ
@given(content=st.binary(max_size=4_000), head=st.sampled_from([b"", b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb"]))
def test_random_bytes(tmp_path, content, head):
    (tmp_path / "a.wav").write_bytes(head + content)
    array_or_media_error(tmp_path / "a.wav")


@FUZZ
@given(data=st.data())
def test_damaged_files(tmp_path, data):
    codecs = {"mp3": "libmp3lame", "flac": "flac", "ogg": "libopus", "m4a": "aac", "wav": "pcm_s16le"}
    suffix = data.draw(st.sampled_from(sorted(codecs)))
    whole = tmp_path / f"whole.{suffix}"
    if not whole.exists():
        write_sound(whole, codecs[suffix], 48_000, "stereo", tone(0.4, 48_000))
    content = bytearray(whole.read_bytes()[: data.draw(st.integers(0, whole.stat().st_size))])
    for _ in range(data.draw(st.integers(0, 8)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    array_or_media_error(path)


@FUZZ
@given(
    rate=st.integers(8_000, 96_000),
    channels=st.integers(1, 6),
    milliseconds=st.integers(5, 80),
    kind=st.sampled_from(["<i2", "<f4", "<f8", "<u1", "<i4"]),
)
def test_random_rates_and_lengths(tmp_path, rate, channels, milliseconds, kind):
    count = rate * milliseconds // 1000
    values = np.full((count, channels), 0.25 if "f" in kind else 100).astype(kind)
    (tmp_path / "a.wav").write_bytes(wav_bytes(values, rate, channels))
    speech = read_audio(tmp_path / "a.wav")
    assert abs(len(speech) - max(640, count * 16_000 / rate)) <= 2
