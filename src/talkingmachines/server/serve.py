"""Listening, until it is told to stop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI

from talkingmachines.errors import ConfigError
from talkingmachines.media.files import reason
from talkingmachines.server.config import ServerConfig

GRACE = 5
"""Seconds that requests have to end at shutdown."""

ASKED = 0.5
"""Seconds in which pages whose calls were ended ask why."""


def bind(config: ServerConfig) -> tuple[socket.socket, ServerConfig]:
    """A socket that listens, and the configuration with its real port. Raises ConfigError when it cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen()  # until then another may have the same port
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port} ({reason(error)}); choose others with --host and --port"
        ) from error
    return listener, replace(config, port=listener.getsockname()[1])


def serve(app: FastAPI, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Answers until SIGINT or SIGTERM; then ends all calls, each with its recording. ready: called when it listens."""
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=32_000,
        server_header=False,
        http="h11",
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when everything has been closed
        _Server(app, settings, ready).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says when it is ready, and ends the calls of the application while pages can still be told."""

    def __init__(self, app: FastAPI, settings: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._calls, self._ready = app.state.calls, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:  # the end takes seconds; told again, uvicorn would leave out a part of it
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._calls.active:
            await self._calls.close()
            await asyncio.sleep(ASKED)
        await super().shutdown(sockets)
