"""`livekit`: a worker that gives LiveKit agents a face."""

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from talkingmachines.cli.avatar_options import AvatarOptions, DeviceOption, takes_avatar_options
from talkingmachines.errors import ConfigError, MissingPackageError
from talkingmachines.media.files import reason

SETTINGS = ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
"""Where livekit-agents reads its server from; not options, which other users of the machine could read."""


@takes_avatar_options
def livekit(
    *,
    options: AvatarOptions,
    image: Annotated[Path | None, typer.Option(help="The character; one of the package unless given.")] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=1, help="At the same time. As many as fit this machine, unless given.")
    ] = None,
    name: Annotated[str, typer.Option(help="What agents ask for; workers of one name share its calls.")] = (
        "talkingmachines"
    ),
    host: Annotated[str, typer.Option(help="Where to answer health checks; 0.0.0.0: everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of health checks.")] = 8082,
    device: DeviceOption = "auto",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:
    """Take calls from a LiveKit server: LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say which."""
    from talkingmachines.media.image import read_image
    from talkingmachines.server.capacity import measured_calls
    from talkingmachines.server.logs import set_up_logging
    from talkingmachines.server.pictures import LOOKS, bundled_picture

    set_up_logging(log_json)
    try:
        from talkingmachines.conversation.livekit_worker import AvatarWorker
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"a LiveKit worker needs the package {error.name}; run: pip install 'talkingmachines[livekit]'"
        ) from error
    if missing := [setting for setting in SETTINGS if not os.environ.get(setting)]:
        raise ConfigError(f"which LiveKit server? Set the environment variables {', '.join(missing)}")
    picture = read_image(image) if image else bundled_picture(LOOKS[0])
    with Console(stderr=True).status(f"loading {options.preset}") as status:
        avatar = options.load_apart(device, partial(set_up_logging, log_json))
        if not max_calls:
            status.update("measuring how many calls fit")
            max_calls = measured_calls(avatar)
    worker = AvatarWorker(avatar, picture, max_calls, name, host, port)
    try:
        with avatar.needed():
            asyncio.run(worker.run())
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port} ({reason(error)}); choose others with --host and --port"
        ) from error
    except RuntimeError as error:
        raise ConfigError(f"{os.environ['LIVEKIT_URL']}: {error}; are the address and the key right?") from error
