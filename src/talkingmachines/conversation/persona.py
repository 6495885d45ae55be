"""Who the character is: a small TOML file."""

import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

from talkingmachines.errors import ConfigError

LIMITS = {"name": 60, "character": 8000, "greeting": 500, "voice": 60}
"""Characters that a text may have at most."""


@dataclass(frozen=True)
class Persona:
    """name: shown in the call; character: who it is and how it answers, for the language model; greeting: said first,
    nothing when empty; voice: a name that the chosen voice knows, its own choice when empty.

    Raises ConfigError for a text that is none, empty where it must not be, or too long.
    """

    name: str
    character: str
    greeting: str = ""
    voice: str = ""

    def __post_init__(self) -> None:
        for key, limit in LIMITS.items():
            value = getattr(self, key)
            if not isinstance(value, str):
                raise ConfigError(f"a persona's {key} must be text in quotes, got {value!r}")
            if len(value) > limit:
                raise ConfigError(f"a persona's {key} may have {limit} characters, this one has {len(value)}")
            if key in {"name", "character"} and not value.strip():
                raise ConfigError(f"a persona needs a {key}")
            object.__setattr__(self, key, value.strip())


def bundled_personas() -> dict[str, Persona]:
    """Those that come with the package, by the names of their files."""
    folder = files("talkingmachines.conversation") / "personas"
    found = sorted((item for item in folder.iterdir() if item.name.endswith(".toml")), key=lambda item: item.name)
    return {item.name.removesuffix(".toml"): _parse(item.read_bytes(), item.name) for item in found}


def load_persona(name_or_path: str = "nova") -> Persona:
    """A bundled persona by its name, or one from a file. Raises ConfigError with what is wrong and where."""
    bundled = bundled_personas()
    if name_or_path in bundled:
        return bundled[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(f"no persona {name_or_path!r}: give one of {', '.join(bundled)}, or the path of a TOML file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the persona {path}: {error.strerror}") from error
    return _parse(content, str(path))


def _parse(content: bytes, where: str) -> Persona:
    known = [field.name for field in fields(Persona)]
    try:
        table = tomllib.loads(content.decode("utf-8"))
        unknown = sorted(set(table) - set(known))
        if unknown:
            raise ConfigError(f"unknown key {unknown[0]!r}; a persona has {', '.join(known)}")
        missing = [key for key in ("name", "character") if key not in table]
        if missing:
            raise ConfigError(f"a persona needs a {missing[0]}")
        return Persona(**table)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{where} is not a TOML file: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
