"""An avatar in a process of its own, for programs whose Python has much else to do, as a call's event loop has.

Each operation of a model gives Python's lock away and takes it back, thousands of times for a chunk of the pocket.
Beside a thread that holds it a third of the time a chunk takes more than half as long again; in a process of its own
it takes as long as alone.
"""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.managers import BaseManager, BaseProxy
from typing import Any

import numpy as np

from talkingmachines.errors import SessionError
from talkingmachines.media.face import Box
from talkingmachines.streaming.pacing import LiveCall
from talkingmachines.types import VideoFrame

_SERVE = "from talkingmachines.apart import serve; serve()"

_GONE = 1.0
"""Seconds after its last word in which it is seen that the process has ended."""

_ENDING = 5.0
"""Seconds that the process may take to end by itself."""


class ApartAvatar:
    """An Avatar that is loaded and works in a process of its own, for live calls. That process ends with this one, and
    this one need not read torch.

    name_or_path, options: as of avatar.load, but that a processor makes chunks in one step unless `steps` are given:
    what hears, thinks and speaks in a call needs the time of the others. begin: is called there before anything else,
    as to set up logging; a function of a module, perhaps partial. yields: whether the models leave a core to what
    hears, thinks and speaks. window, steps: see ChunkConfig.

    Raises what avatar.load raises.
    """

    def __init__(
        self,
        name_or_path: str = "pocket",
        *,
        begin: Callable[[], None] | None = None,
        yields: bool = True,
        **options: Any,
    ) -> None:
        key = secrets.token_bytes(32)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVE], stdin=pipe, stdout=pipe, start_new_session=True
        )
        self._end = weakref.finalize(self, _end, self._process)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(key.hex().encode() + b"\n")
        self._process.stdin.flush()
        address = self._process.stdout.readline().decode().strip()
        if not address:
            raise SessionError(f"the process for the models did not begin ({self._process.wait()})")
        manager = _Models(address, key)
        manager.connect()
        self._host = manager.Host()  # type: ignore[attr-defined]
        self.shape: tuple[int, int]
        self.chunk_frames: int
        self.window: int
        self.steps: int
        try:
            self.shape, self.chunk_frames, self.window, self.steps = self._ask(
                self._host, "load", {"name_or_path": name_or_path, **options}, begin, yields
            )
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def check_box(self, box: Box) -> None:
        """See Preset.check_box."""
        self._ask(self._host, "check_box", box)

    def fit(self, image: np.ndarray) -> np.ndarray:
        """See Avatar.fit."""
        return self._ask(self._host, "fit", image)

    def session(self, image: np.ndarray, seed: int = 0, *, face_box: Box | None = None) -> "ApartSession":
        """What `live` is made of, without `push_audio`; see there. SessionError: the process has ended."""
        session = self._ask(self._host, "session", image, seed, face_box)
        return ApartSession(lambda *asked: self._ask(session, *asked))

    def live(self, image: np.ndarray, seed: int = 0, *, face_box: Box | None = None) -> LiveCall:
        """See Avatar.live."""
        return LiveCall(self.session(image, seed, face_box=face_box), self.chunk_frames)

    @contextmanager
    def needed(self) -> Iterator[None]:
        """For a program that is nothing without it: this process is interrupted when the models' has ended in
        here, as where memory is short, and then a SessionError is raised. At the end they are closed."""
        watch = threading.Thread(target=self._watch, name="models watch", daemon=True)
        watch.start()
        try:
            yield
            if (code := self._process.poll()) is not None:
                raise SessionError(
                    f"the process of the models has ended ({code}): killed, or out of memory; begin anew"
                )
        finally:
            self.close()
            watch.join()

    def _watch(self) -> None:
        self._process.wait()
        if self._end.alive:
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None:
        """Ends the process, and with it all its sessions. Harmless when repeated."""
        self._end()

    def _ask(self, asked: BaseProxy, method: str, *arguments: Any) -> Any:
        try:
            return asked._callmethod(method, arguments)
        except (EOFError, OSError) as error:
            # Of the line to the process, or an error of the models that is of the same kind, as of a hub out of reach.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GONE)
                raise SessionError("the process of the models has ended; begin anew") from error
            raise


class ApartSession:
    """A LiveSession in the avatar's process."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask
        self.samples_ahead: int = ask("samples_ahead")

    @property
    def samples_wanted(self) -> int:
        return self._ask("samples_wanted")

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> int:
        """See Session.denoise. The latents stay there; this is their number."""
        return self._ask("denoise", pcm, coming)

    def decode(self, latents: int) -> list[VideoFrame]:
        """See Session.decode."""
        return self._ask("decode", latents)

    def interrupt(self) -> None:
        self._ask("interrupt")

    def close(self) -> None:
        with suppress(SessionError):  # it has ended with its process
            self._ask("close")


def serve() -> None:
    """What the process of the models does: answers, until the one that has begun it closes its pipe or is gone."""
    from talkingmachines.malloc import tune_malloc

    tune_malloc()
    # A signal is often sent to both: calls end in the other process, which needs this one for that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    key = bytes.fromhex(sys.stdin.readline())
    server = _Models(authkey=key).get_server()
    print(server.address, flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for whatever else is printed
    threading.Thread(target=_stop_with_the_other, args=(server,), daemon=True).start()
    server.serve_forever()


def _stop_with_the_other(server: Any) -> None:
    sys.stdin.read()
    while not hasattr(server, "stop_event"):  # it has not begun to serve
        time.sleep(0.01)
    server.stop_event.set()


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin and process.stdout
    process.stdin.close()
    process.stdout.close()
    try:
        process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Host:
    """The avatar, in its process."""

    def load(
        self, options: dict[str, Any], begin: Callable[[], None] | None, yields: bool
    ) -> tuple[tuple[int, int], int, int, int]:
        if begin:
            begin()
        import torch

        from talkingmachines import avatar
        from talkingmachines.precision import choose_device

        if options.get("steps") is None and choose_device(options.get("device", "auto")).type == "cpu":
            options["steps"] = 1
        self._avatar = avatar.load(**options)
        if yields:
            torch.set_num_threads(max(1, torch.get_num_threads() - 1))
        loaded, chunk = self._avatar, self._avatar.preset.chunk
        return loaded.shape, loaded.chunk_frames, chunk.window, chunk.steps

    def check_box(self, box: Box) -> None:
        self._avatar.preset.check_box(box)

    def fit(self, image: np.ndarray) -> np.ndarray:
        return self._avatar.fit(image)

    def session(self, image: np.ndarray, seed: int, face_box: Box | None) -> "_Session":
        return _Session(self._avatar.session(image, seed, face_box=face_box))


class _Session:
    """A session, in the avatar's process. Latents do not leave it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._denoised: dict[int, Any] = {}
        self._numbers = count(1)

    def samples_wanted(self) -> int:
        return self._session.samples_wanted

    def samples_ahead(self) -> int:
        return self._session.samples_ahead

    def denoise(self, pcm: np.ndarray, coming: np.ndarray) -> int:
        latents, number = self._session.denoise(pcm, coming), next(self._numbers)
        self._denoised[number] = latents
        return number

    def decode(self, number: int) -> list[VideoFrame]:
        latents = self._denoised.pop(number, None)
        if latents is None:
            raise SessionError("this session is closed; open another")
        return self._session.decode(latents)

    def interrupt(self) -> None:
        self._session.interrupt()

    def close(self) -> None:
        self._session.close()
        self._denoised.clear()


class _Models(BaseManager):
    """The server in one process, its client in the other. Every thread of the client has a thread of the server."""


_Models.register(
    "Host", _Host, exposed=("load", "check_box", "fit", "session"), method_to_typeid={"session": "Session"}
)
_Models.register(
    "Session",
    exposed=("samples_wanted", "samples_ahead", "denoise", "decode", "interrupt", "close"),
    create_method=False,
)
