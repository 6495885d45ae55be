import asyncio
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from talkingmachines.cli.livekit import SETTINGS
from talkingmachines.cli.main import main

COMMAND = ["livekit", "--max-calls", "2"]


@pytest.fixture(name="server")
def _server(monkeypatch):
    for name in SETTINGS:
        monkeypatch.setenv(name, "ws://localhost:7880")


@pytest.fixture(name="workers")
def _workers(monkeypatch):
    """The workers that would run, with an avatar that is never used."""
    pytest.importorskip("livekit.agents", reason="needs the [livekit] extra")
    workers = []

    class Worker:
        failure: Exception | None = None

        def __init__(self, *arguments):
            self.arguments = arguments
            workers.append(self)

        async def run(self):
            await asyncio.sleep(0)
            if self.failure:
                raise self.failure

    avatar = SimpleNamespace(window=2, steps=2, needed=nullcontext)
    monkeypatch.setattr("talkingmachines.conversation.livekit_worker.AvatarWorker", Worker)
    monkeypatch.setattr("talkingmachines.apart.ApartAvatar", lambda **options: avatar)
    return SimpleNamespace(all=workers, kind=Worker, avatar=avatar)


def test_a_worker_with_what_was_asked_for(server, workers, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(tmp_path / "me.png")
    assert main([*COMMAND, "--image", str(tmp_path / "me.png"), "--name", "faces", "--port", "0"]) == 0
    avatar, picture, *others = workers.all[0].arguments
    assert avatar is workers.avatar and picture.shape == (40, 40, 3) and (picture == 7).all()
    assert others == [2, "faces", "127.0.0.1", 0]


def test_as_many_calls_as_fit(capsys, server, workers, monkeypatch):
    monkeypatch.setattr("talkingmachines.server.capacity.calls_that_fit", lambda *_: (3, 0.1))
    assert main(["livekit"]) == 0
    assert workers.all[0].arguments[2] == 3
    assert "3 calls at the same time" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("missing", SETTINGS)
def test_which_server_is_missing(capsys, server, workers, monkeypatch, missing):
    monkeypatch.delenv(missing)
    assert main(COMMAND) == 2
    error = capsys.readouterr().err.strip()
    assert missing in error and len(error.splitlines()) == 1 and not workers.all


def test_the_package_is_missing(capsys, monkeypatch, server):
    for name in [name for name in sys.modules if name.startswith("talkingmachines.conversation.livekit")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "livekit", None)
    assert main(COMMAND) == 2
    error = capsys.readouterr().err.strip()
    assert "pip install 'talkingmachines[livekit]'" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (OSError(98, "address already in use"), "--port"),
        (RuntimeError("failed to connect to livekit after 16 attempts"), "ws://localhost:7880"),
    ],
)
def test_a_worker_that_cannot_begin(capsys, server, workers, failure, words):
    workers.kind.failure = failure
    assert main(COMMAND) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "words"), [(["--max-calls", "0"], "--max-calls"), (["--image", "nowhere.png"], "nowhere.png")]
)
def test_what_a_user_can_mend_is_one_line(capsys, server, workers, argv, words):
    assert main([*COMMAND, *argv]) == 2
    assert words in capsys.readouterr().err and not workers.all
