import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from talkingmachines.errors import MediaError
from talkingmachines.media import fit_image, read_image, write_image

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def gradient(height=40, width=60):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, np.full_like(x, 90)], axis=-1).astype(np.uint8)


def save(path, pixels, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("bmp", 0), ("tif", 0), ("jpg", 6), ("webp", 10)])
def test_common_formats(tmp_path, suffix, tolerance):
    pixels = gradient()
    got = read_image(save(tmp_path / f"a.{suffix}", pixels))
    assert got.shape == pixels.shape
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - pixels).mean() <= tolerance


def test_exif_rotation(tmp_path):
    pixels = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    got = read_image(save(tmp_path / "a.png", pixels, exif=exif))
    assert np.array_equal(got, np.rot90(pixels, -1))


def test_alpha_is_laid_over_light_grey(tmp_path):
    pixels = np.concatenate([gradient(), np.full((40, 60, 1), 255, np.uint8)], axis=-1)
    pixels[:, :30, 3] = 0
    pixels[:20, 30:, 3] = 128
    got = read_image(save(tmp_path / "a.png", pixels)).astype(int)
    assert (got[:, :30] == 224).all()
    assert np.array_equal(got[20:, 30:], pixels[20:, 30:, :3])
    assert np.abs(got[:20, 30:] - (pixels[:20, 30:, :3].astype(int) + 224) / 2).max() <= 2


def test_modes(tmp_path):
    grey = gradient()[..., 1]
    three = np.stack([grey] * 3, axis=-1)
    assert np.array_equal(read_image(save(tmp_path / "l.png", grey)), three)
    assert np.array_equal(read_image(save(tmp_path / "16.png", grey.astype(np.uint16) * 257)), three)
    assert np.array_equal(read_image(save(tmp_path / "16.tif", grey.astype(np.uint16) * 257)), three)
    cmyk = Image.fromarray(gradient()).convert("CMYK")
    assert np.abs(read_image(save(tmp_path / "c.jpg", cmyk, quality=95)).astype(int) - gradient()).mean() < 6
    palette = Image.fromarray(three).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.abs(read_image(save(tmp_path / "p.png", palette)).astype(int) - three).max() <= 4
    bilevel = Image.fromarray(grey > 128)
    assert np.array_equal(np.unique(read_image(save(tmp_path / "1.png", bilevel))), [0, 255])
    clear = Image.fromarray(np.zeros((20, 20), np.uint8), "P")
    clear.putpalette([255, 0, 0])
    assert (read_image(save(tmp_path / "t.png", clear, transparency=0)) == 224).all()
    half = np.where(np.arange(60) < 30, 0, 50_000)[None].repeat(40, 0).astype(np.uint16)
    seen = read_image(save(tmp_path / "t16.png", half, transparency=0))
    assert (seen[:, :30] == 224).all() and (seen[:, 30:] == 194).all()


def exchanged_profile():
    """sRGB's, with the primaries of red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = {bytes(profile[at : at + 4]): slice(at + 4, at + 12) for at in range(132, 132 + 12 * count, 12)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red], profile[blue] = profile[blue], profile[red]
    return bytes(profile)


def test_a_colour_profile_is_followed_beside_transparency_too(tmp_path):
    profile = exchanged_profile()
    plain = np.full((20, 20, 4), (250, 20, 20, 255), np.uint8)
    plain[:10, :, 3] = 0
    opaque = read_image(save(tmp_path / "rgb.png", plain[..., :3], icc_profile=profile))
    seen = read_image(save(tmp_path / "rgba.png", plain, icc_profile=profile))
    assert opaque[15, 5, 2] > 240 and np.array_equal(seen[10:], opaque[10:])
    assert (seen[:10] == 224).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "green")]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert np.abs(read_image(path).astype(int) - [255, 0, 0]).max() <= 2


def png_claiming(width, height):
    """A few bytes that claim to be a picture of any size."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_each_bad_picture_says_what_is_wrong(tmp_path):
    whole = save(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).read_bytes()
    jpeg = io.BytesIO()
    Image.fromarray(gradient(200, 200)).save(jpeg, "JPEG")
    files = {
        "empty.png": b"",
        "text.png": b"not a picture",
        "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n",
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "bomb.png": png_claiming(8_001, 8_000),
        "huge.png": png_claiming(100_000, 100_000),
        "dot.png": save(tmp_path / "dot.png", gradient(1, 1)).read_bytes(),
        "thin.png": save(tmp_path / "thin.png", gradient(15, 400)).read_bytes(),
        "float.tif": save(tmp_path / "float.tif", np.zeros((20, 20), np.float32)).read_bytes(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    expected = {
        "empty.png": "empty",
        "text.png": "not a picture",
        "page.eps": "not a picture",
        "cut.png": "damaged or cut short",
        "cut.jpg": "damaged or cut short",
        "bomb.png": "too large",
        "huge.png": "too large",
        "dot.png": "too small",
        "thin.png": "too small",
        "float.tif": "floating-point",
        "missing.png": "no such file",
        ".": "is a folder",
    }
    for name, words in expected.items():
        with pytest.raises(MediaError, match=words) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def array_or_media_error(path):
    try:
        pixels = read_image(path)
    except MediaError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert min(pixels.shape[:2]) >= 16


HEADS = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"GIF89a",
    b"RIFF\x20\0\0\0WEBP",
    b"II*\0",
    b"BM",
    b"P5 32 32 255\n",
]


@FUZZ
@given(content=st.binary(max_size=2_000), head=st.sampled_from(HEADS))
def test_random_bytes(tmp_path, content, head):
    (tmp_path / "a").write_bytes(head + content)
    array_or_media_error(tmp_path / "a")


@FUZZ
@given(data=st.data())
def test_damaged_files(tmp_path, data):
    suffix = data.draw(st.sampled_from(["png", "jpg", "gif", "webp", "tif", "bmp"]))
    whole = tmp_path / f"whole.{suffix}"
    if not whole.exists():
        save(whole, gradient())
    content = bytearray(whole.read_bytes()[: data.draw(st.integers(0, whole.stat().st_size))])
    for _ in range(data.draw(st.integers(0, 8)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    array_or_media_error(path)


@FUZZ
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I", "YCbCr", "LAB", "F"]),
    suffix=st.sampled_from(["png", "tif", "jpg", "gif", "webp", "bmp"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
)
def test_random_modes_and_sizes(tmp_path, mode, suffix, width, height):
    path = tmp_path / f"a.{suffix}"
    try:
        Image.new(mode, (width, height)).save(path)
    except (OSError, ValueError, KeyError):
        return  # that format has no such mode
    array_or_media_error(path)
    if min(width, height) >= 16 and mode != "F":
        assert read_image(path).shape == (height, width, 3)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (17, 90), (32, 32)])
def test_fit_takes_the_middle(shape):
    pixels = np.zeros((*shape, 3), np.uint8)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    pixels[top : top + side, left : left + side] = 200
    got = fit_image(pixels, 32)
    assert got.shape == (32, 32, 3)
    assert (got == 200).all()


def test_fit_at_its_own_size_changes_nothing():
    pixels = gradient(32, 32)
    assert np.array_equal(fit_image(pixels, 32), pixels)


def test_write_image(tmp_path):
    write_image(tmp_path / "a.png", gradient())
    assert np.array_equal(read_image(tmp_path / "a.png"), gradient())
    with pytest.raises(MediaError, match="cannot be written"):
        write_image(tmp_path / "missing" / "a.png", gradient())
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
