"""What every reader checks before it decodes, and every writer needs to leave nothing half-written."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from talkingmachines.errors import MediaError

_TEMPORARY = ".talkingmachines-"


def readable_file(path: str | Path, kind: str) -> Path:
    """The path of a non-empty regular file that can be opened. kind: the words for it in the message.

    Raises MediaError when it is missing, a folder, something else than a file, unreadable or empty.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise MediaError(f"{path}: there is no such file; give the path of {kind}")
        if path.is_dir():
            raise MediaError(f"{path}: this is a folder; give the path of {kind}")
        if not path.is_file():
            raise MediaError(f"{path}: this is not a regular file; save it as a file first, then give its path")
        with path.open("rb") as file:
            if not file.read(1):
                raise MediaError(f"{path}: the file is empty (0 bytes); give the path of {kind}")
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be opened ({reason(error)}); check the path and permissions") from error
    return path


def reason(error: BaseException) -> str:
    """What the system or a codec said, in one short line."""
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return text if len(text) <= 160 else text[:157] + "..."


def temporary_beside(path: Path) -> Path:
    """A new name in the same folder, with the same ending: written first, then renamed in one atomic step."""
    return path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path` when the block has ended well; after an error nothing has changed."""
    partial = temporary_beside(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """What processes that were killed have left of files they were writing there, where no other is writing."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        left.unlink(missing_ok=True)


def cannot_write(path: Path, error: BaseException) -> MediaError:
    """The error for a file that could not be written, whatever the system's reason."""
    return MediaError(
        f"{path}: cannot be written ({reason(error)}); check the free space and the permissions of its folder"
    )
