"""Where recordings are kept, and for how long."""

import logging
import tempfile
import time
from datetime import datetime
from pathlib import Path

from talkingmachines.errors import MediaError
from talkingmachines.media.files import reason
from talkingmachines.server.recording import Recorder, recover

log = logging.getLogger(__name__)

HOUR = 3600.0
"""So long a recording that the user asked for can be fetched, where no folder was given to keep it in."""


def make_folder(folder: Path) -> None:
    """A folder for recordings, unless it is there. Raises MediaError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder}: the folder cannot be made ({reason(error)}); choose another") from error


class Recordings:
    """folder: every call is recorded there and kept; None: what users ask for is kept for an hour, out of sight.

    shape: height and width of the pictures in pixels, even; name: of the character, for the titles.
    Methods block; they are safe to use from several threads.
    Raises MediaError when the folder cannot be used.
    """

    def __init__(self, folder: Path | None, shape: tuple[int, int], name: str) -> None:
        self.always, self._shape, self._name = folder is not None, shape, name
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="talkingmachines-")
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        make_folder(self._folder)
        for path in recover(self._folder):
            log.warning("%s: this recording was cut off by a crash; it plays up to there", path)
        self._finished: dict[str, Path] = {}

    def start(self, call: str) -> Recorder:
        """A recorder for the call of that id."""
        self._clean()
        moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
        path = self._folder / f"{moment}-{call}.mp4"
        height, width = self._shape
        return Recorder(path, (width, height), f"A call with {self._name}")

    def finish(self, recorder: Recorder) -> str | None:
        """Closes it; the name under which `path` finds it, or None when it failed."""
        path = recorder.close()
        if recorder.lost:
            log.warning("%s: the disk was too slow for %d pictures and pieces of sound", recorder.path, recorder.lost)
        if path is None:
            return None
        self._finished[path.name] = path
        log.info("%s: recorded", path)
        return path.name

    def path(self, name: str) -> Path | None:
        """A finished recording of this server. Only names that `finish` gave are known, so no path leads elsewhere."""
        return self._finished.get(name)

    def close(self) -> None:
        """Deletes what was kept out of sight."""
        if self._temporary:
            self._temporary.cleanup()

    def _clean(self) -> None:
        if self.always:
            return
        for name, path in list(self._finished.items()):
            if path.exists() and time.time() - path.stat().st_mtime > HOUR:
                path.unlink(missing_ok=True)
                self._finished.pop(name, None)
