"""Pictures of any common format, read as plain RGB."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from talkingmachines.errors import MediaError
from talkingmachines.media.files import cannot_write, readable_file, reason, replacing

MAX_PIXELS = 64_000_000
MIN_SIDE = 16
BACKGROUND = (224, 224, 224)
"""What shows through transparent parts: a neutral light grey, as behind a portrait."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Pixel formats only: no page descriptions (EPS, WMF), which run other programs to be drawn."""


def read_image(path: str | Path) -> np.ndarray:
    """A picture as uint8 [H, W, 3] RGB, upright.

    EXIF rotation is applied, transparent parts are laid over a neutral light grey (224, 224, 224), an animation
    gives its first frame, 16 bits become 8, and an embedded colour profile is followed to sRGB.

    Raises MediaError (missing, a folder, not a picture, truncated, over 64 megapixels, under 16x16).
    """
    path = readable_file(path, "a picture (PNG, JPEG, WebP, ...)")
    try:
        # Decoders warn about what they mend; an error below is the one thing the user needs to hear.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(path)
    except MediaError:
        raise
    except Image.UnidentifiedImageError as error:
        raise MediaError(f"{path}: is not a picture that can be read; give a PNG, JPEG or WebP file") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many") from error
    except Exception as error:  # damaged files make Pillow's plugins raise errors of any type
        raise MediaError(f"{path}: is damaged or cut short ({reason(error)}); get an undamaged copy") from error


def check_picture(pixels: np.ndarray) -> None:
    """Raises MediaError for anything but uint8 [H, W, 3] with at least one pixel."""
    given = isinstance(pixels, np.ndarray)
    if not given or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,) or not pixels.size:
        found = f"{pixels.dtype} {list(pixels.shape)}" if given else type(pixels).__name__
        raise MediaError(f"a picture must be an array [H, W, 3] of uint8, got {found}; use read_image")


def fit_image(pixels: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """The largest centred part of a picture uint8 [H, W, 3] of that shape, resized with Lanczos to that size.

    size: height and width, or one number for both. Returns uint8 [height, width, 3].
    """
    height, width = (size, size) if isinstance(size, int) else size
    scale = min(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    part = Image.fromarray(np.ascontiguousarray(pixels[top : top + rows, left : left + columns]))
    return np.asarray(part.resize((width, height), Image.Resampling.LANCZOS)).copy()


def at_most(pixels: np.ndarray, side: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] made smaller, if both its sides are longer than `side`."""
    scale = side / min(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (round(scale * length) for length in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)).copy()


def write_image(path: str | Path, pixels: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB in the format of the path's ending, whole or not at all. Raises MediaError."""
    path = Path(path)
    try:
        with replacing(path) as part:
            Image.fromarray(pixels).save(part)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def _decode(path: Path) -> np.ndarray:
    Image.init()
    with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _too_large(path, f"{width}x{height}")
        if min(width, height) < MIN_SIDE:
            raise MediaError(
                f"{path}: is too small ({width}x{height} pixels); give one of at least {MIN_SIDE}x{MIN_SIDE}, "
                "better 256x256 or more"
            )
        image.load()
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image), path)).copy()


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Any mode of Pillow to RGB, seen as a viewer shows it."""
    if image.mode == "F":
        raise MediaError(f"{path}: has floating-point pixels, whose range is not known; save it as an 8-bit PNG")
    if image.mode.startswith("I"):  # 16-bit grey, in 16 or 32 bits of memory
        values = np.asarray(image)
        grey = Image.fromarray((values // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
        clear = image.info.get("transparency")  # one value, where there is any
        return grey if clear is None else _over_background(grey, Image.fromarray(values != clear).convert("L"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        colours = image.convert("RGB")
        return _over_background(_by_profile(colours) or colours, image.getchannel("A"))
    return _by_profile(image) or image.convert("RGB")


def _over_background(image: Image.Image, opacity: Image.Image) -> Image.Image:
    return Image.composite(image, Image.new("RGB", image.size, BACKGROUND), opacity)


def _by_profile(image: Image.Image) -> Image.Image | None:
    """RGB or CMYK to sRGB through the embedded colour profile; None where there is none that fits."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return None
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # a damaged profile: the plain conversion is what viewers show then


def _too_large(path: Path, size: str) -> MediaError:
    return MediaError(
        f"{path}: is too large ({size} pixels; at most {MAX_PIXELS // 1_000_000} megapixels are read); "
        "give a smaller copy, 1024x1024 is plenty"
    )
