"""Pictures to call: those that come with the package, and those that users bring, which are never stored."""

import io
import math
import os
import secrets
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

from talkingmachines.errors import MediaError
from talkingmachines.media.image import at_most, read_image

MAX_BYTES = 10_000_000
MAX_SIDE = 2048
"""Pixels of the shorter side; of a larger picture a smaller copy is looked at."""

KEPT = 32
"""Pictures of users that are kept in memory at the same time; of more, the one used longest ago is forgotten."""

MINUTES = 15
"""After so many a user's picture that nobody has used is forgotten."""


LOOKS = ("red-scarf", "polka-dots", "blue-hijab", "round-glasses", "pink-hair", "red-beard", "white-hair")
"""The characters of the package, in the order in which they are offered."""


def bundled_characters() -> dict[str, tuple[str, bytes]]:
    """Of each character of the package: its name -> what it looks like in words, and its file, WebP."""
    folder = files("talkingmachines") / "assets" / "characters"
    return {name: (name.replace("-", " ").capitalize(), (folder / f"{name}.webp").read_bytes()) for name in LOOKS}


def bundled_picture(name: str) -> np.ndarray:
    """uint8 [H, W, 3]. Raises MediaError for a name that is none of theirs."""
    if name not in LOOKS:
        raise MediaError("there is no such character; choose one of those shown")
    with as_file(files("talkingmachines") / "assets" / "characters" / f"{name}.webp") as path:
        return read_image(path)


class Pictures:
    """What users have brought: checked, cut, and kept in memory for a while under names nobody can guess.

    fit: cuts a picture as calls do, see Avatar.fit. Safe to use from several threads.
    """

    def __init__(self, fit: Callable[[np.ndarray], np.ndarray]) -> None:
        self._fit = fit
        self._kept: OrderedDict[str, tuple[float, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, data: bytes, for_good: bool = False) -> str:
        """The name of the picture from now on. Blocks while it is decoded. Raises MediaError for what is none, or too
        large.

        for_good: of the server itself: never forgotten, and as large as it likes.
        """
        if len(data) > MAX_BYTES and not for_good:
            raise MediaError(f"the picture is larger than {MAX_BYTES // 1_000_000} MB; give a smaller copy")
        if not data:
            raise MediaError("the picture is empty (0 bytes); choose another file")
        with _as_file(data) as path:
            try:
                pixels = self._fit(at_most(read_image(path), MAX_SIDE))
            except MediaError as error:
                # The name of a file that we made up says nothing to the user.
                raise MediaError(str(error).replace(f"{path}:", "the picture").replace(str(path), "it")) from error
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[name] = (math.inf if for_good else time.monotonic(), pixels)
            self._forget()
        return name

    def get(self, name: str) -> np.ndarray:
        """uint8 [height, width, 3]. Raises MediaError when there is none, or no more."""
        with self._lock:
            self._forget()
            if name not in self._kept:
                raise MediaError("this picture is not there any more; choose it again")
            return self._use(name)

    def clean(self, called: Sequence[np.ndarray]) -> None:
        """Forgets what nobody has used for long enough. called: pictures of calls that go on, as `get` gave them."""
        with self._lock:
            for name, (_, pixels) in list(self._kept.items()):
                if any(pixels is other for other in called):
                    self._use(name)
            self._forget()

    def png(self, name: str) -> bytes:
        """The same as a PNG file. Raises MediaError."""
        file = io.BytesIO()
        Image.fromarray(self.get(name)).save(file, "PNG")
        return file.getvalue()

    def _use(self, name: str) -> np.ndarray:
        used, pixels = self._kept.pop(name)
        self._kept[name] = (max(used, time.monotonic()), pixels)
        return pixels

    def _forget(self) -> None:
        now = time.monotonic()
        for name, (used, _) in list(self._kept.items()):
            if used < math.inf and (len(self._kept) > KEPT or now - used > 60 * MINUTES):
                del self._kept[name]


@contextmanager
def _as_file(data: bytes) -> Iterator[Path]:
    """Bytes as a file that only this user of the machine can read, gone afterwards."""
    handle, name = tempfile.mkstemp(prefix="talkingmachines-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
