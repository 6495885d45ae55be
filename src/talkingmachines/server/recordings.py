"""Where recordings are kept, and for how long."""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from talkingmachines.server.recording import HANGS, Recorder, recover

log = logging.getLogger(__name__)

HOUR = 3600.0
"""So long a recording that the user asked for can be fetched, where no folder was given to keep it in."""


class Recordings:
    """folder: one that is there, where every call is recorded and kept; None: what users ask for is kept for an hour,
    out of sight.

    shape: height and width of the pictures in pixels, even; name: of the character, for the titles; failed: called on
    any thread for each that fails.
    Methods but `start` block; those are safe to use from several threads.
    """

    def __init__(
        self, folder: Path | None, shape: tuple[int, int], name: str, failed: Callable[[], None] = lambda: None
    ) -> None:
        self.always, self._shape, self._name, self._failed = folder is not None, shape, name, failed
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="talkingmachines-")
        self._folder = folder or Path(self._temporary.name if self._temporary else "")
        for path in recover(self._folder):
            log.warning("%s: this recording was cut off by a crash; it plays up to there", path)
        self._finished: dict[str, Path] = {}
        self._begun: Counter[str] = Counter()

    def start(self, call: str) -> Recorder:
        """A recorder for the call of that id, at once, whatever the disk does."""
        moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
        name = f"{moment}-{call}"
        self._begun[name] += 1
        number = self._begun[name]  # of those begun in this second
        path = self._folder / f"{name}{f'-{number}' if number > 1 else ''}.mp4"
        height, width = self._shape
        title = f"A call with {self._name}"
        return Recorder(path, (width, height), title, keep_part=self.always, failed=self._failed)

    def finish(self, recorder: Recorder, seconds: float = HANGS) -> str | None:
        """Closes it; the name under which `path` finds it, or None when it failed or was not whole after so long."""
        path = recorder.close(seconds)
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

    @property
    def passing(self) -> bool:
        """Whether there is anything that `clean` deletes one day."""
        return not self.always and bool(self._finished)

    def clean(self, wanted: Collection[str]) -> None:
        """Deletes what has been kept long enough. wanted: names of calls that go on, whose hour has not begun."""
        if self.always:
            return
        for name, path in list(self._finished.items()):
            if not path.exists():
                continue
            if name in wanted:
                path.touch()
            elif time.time() - path.stat().st_mtime > HOUR:
                path.unlink(missing_ok=True)
                self._finished.pop(name, None)
