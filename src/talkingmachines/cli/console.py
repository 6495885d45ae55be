"""What the commands share: figures go to stdout, everything for the eye to stderr."""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from talkingmachines.errors import MediaError
from talkingmachines.media.files import reason

if TYPE_CHECKING:
    from talkingmachines.training.loop import Report


def print_json(result: dict[str, object]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(result, indent=2))


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calling update(done, total); before the first call it only shows life."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    # In a log file a bar would leave nothing but empty lines.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training_bar(label: str) -> Iterator["Report"]:
    """A bar on stderr with the loss (averaged over about 50 steps), the speed and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.4f}  {task.fields[rate]:.2f} steps/s"),
        TextColumn("left {task.fields[left]}"),
    )
    begun, first, loss = time.monotonic(), (0, 0.0), 0.0
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(label, total=1.0, step=0, loss=0.0, rate=0.0, left="?")
    bar.start()

    def report(step: int, progress: float, metrics: dict[str, float]) -> None:
        nonlocal first, loss
        if not first[0]:
            first, loss = (step, progress), metrics["loss"]
        loss += 0.02 * (metrics["loss"] - loss)
        elapsed = time.monotonic() - begun
        left = elapsed * (1 - progress) / max(progress - first[1], 1e-6)
        minutes, seconds = divmod(round(left), 60)
        bar.update(
            task,
            completed=progress,
            step=step,
            loss=loss,
            rate=(step - first[0] + 1) / elapsed,
            left=f"{minutes}:{seconds:02}",
        )

    try:
        yield report
    finally:
        with suppress(OSError):  # of a terminal that has been closed
            bar.stop()


class _Lines(logging.Handler):
    """A line on stderr for each record; on the stderr of that moment, which a progress bar may have taken."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


@contextmanager
def log_shown() -> Iterator[None]:
    """What this package has to say of what it does goes to stderr."""
    log, lines = logging.getLogger("talkingmachines"), _Lines()
    before = log.level
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(lines)
        log.setLevel(before)


def make_folder(folder: Path) -> None:
    """Makes the folder and those above it. Raises MediaError when that cannot be, or no file can be written there."""
    doing = "made"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        doing = "written to"
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MediaError(f"{folder}: the folder cannot be {doing} ({reason(error)}); choose another") from error
