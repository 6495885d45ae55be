"""What the server is told when it starts."""

import ipaddress
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from talkingmachines.errors import ConfigError

IceServer = dict[str, Any]
"""As browsers write it: urls, and for TURN username and credential."""


@dataclass(frozen=True)
class ServerConfig:
    """host, port: where it listens. max_calls: at the same time.

    public_url: where users find it when that is another place, say behind a proxy that speaks TLS.
    token: demanded for everything but what guard.check lets pass; drawn when the server can be reached from elsewhere.
    record: a folder where every call is recorded; None: only those that the user records, and for a while.
    ice_servers: STUN and TURN, for calls that come through a router.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    max_calls: int = 1
    public_url: str | None = None
    token: str | None = None
    record: Path | None = None
    ice_servers: tuple[IceServer, ...] = field(default=())

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be 0 to 65535, got {self.port}")
        if self.max_calls < 1:
            raise ConfigError(f"--max-calls must be at least 1, got {self.max_calls}")
        if self.public_url is not None and not _is_public(self.public_url):
            raise ConfigError(f"--public-url is as https://call.example.org (or http://), got {self.public_url!r}")
        for server in self.ice_servers:
            if not isinstance(server, dict) or not isinstance(server.get("urls"), str | list):
                raise ConfigError(
                    'an ICE server is written {"urls": "turn:...", "username": "...", "credential": "..."}'
                )
        if self.token is None and not self.is_private:
            object.__setattr__(self, "token", secrets.token_urlsafe(18))

    @property
    def is_private(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return self.public_url is None and is_loopback(self.host)

    @property
    def is_everywhere(self) -> bool:
        """Whether it listens on all addresses of this machine; "0.0.0.0" itself is none that a browser can open."""
        return self.host in ("0.0.0.0", "::")

    @property
    def link(self) -> str:
        """What the user opens. The token is behind a #: browsers send that to no server, so it is in no log."""
        host = "localhost" if self.host in ("127.0.0.1", "::1") or self.is_everywhere else self.host
        host = f"[{host}]" if ":" in host else host
        base = (self.public_url or f"http://{host}:{self.port}").rstrip("/") + "/"
        return f"{base}#token={self.token}" if self.token else base

    @property
    def public_origin(self) -> str | None:
        """As browsers say it of pages that come from `public_url`."""
        parts = urlsplit(self.public_url or "")
        if not parts.hostname:  # there is none
            return None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        usual = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, usual) else "")

    def is_own_host(self, host: str) -> bool:
        """Whether a request's Host header names this server. With a token that need not be asked."""
        return self.token is not None or is_loopback(_name(host))


def _is_public(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is none
        return False


def is_loopback(host: str) -> bool:
    """Whether a name or address stays on this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
