"""Persona files: those of the package, and what is wrong with others."""

from pathlib import Path

import pytest

from talkingmachines.conversation.persona import Persona, bundled_personas, load_persona
from talkingmachines.errors import ConfigError


def test_two_come_with_the_package() -> None:
    personas = bundled_personas()
    assert set(personas) == {"nova", "rook"}
    assert all(persona.greeting and persona.voice for persona in personas.values())
    assert load_persona("rook") == personas["rook"] and load_persona() == personas["nova"]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "ada.toml"
    path.write_text('name = "Ada"\ncharacter = """\nYou are Ada.\n"""\n')
    assert load_persona(str(path)) == Persona("Ada", "You are Ada.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "Ada"', "needs a character"),
        ('character = "x"', "needs a name"),
        ('name = "  "\ncharacter = "x"', "needs a name"),
        ('name = 3\ncharacter = "x"', "name must be text in quotes, got 3"),
        ('name = "Ada"\ncharacter = "x"\nmood = "good"', "unknown key 'mood'; a persona has name, character"),
        ('name = "Ada"\ncharacter = "x"\ngreeting = ["hi"]', "greeting must be text"),
        (f'name = "{"a" * 61}"\ncharacter = "x"', "name may have 60 characters, this one has 61"),
        ("name = Ada", "is not a TOML file"),
        ("\x00", "is not a TOML file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"wrong\.toml") as caught:
        load_persona(str(path))
    assert message in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "picture.toml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_persona(str(path))


def test_a_persona_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no persona 'nobody': give one of nova, rook"):
        load_persona("nobody")
    with pytest.raises(ConfigError, match="no persona"):
        load_persona(str(tmp_path))
