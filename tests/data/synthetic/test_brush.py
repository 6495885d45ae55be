"""Skia that is not there, or cannot be loaded."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from talkingmachines.cli.doctor import examine
from talkingmachines.data.synthetic.brush import load_skia
from talkingmachines.errors import MissingPackageError


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delitem(sys.modules, "skia", raising=False)
    load_skia.cache_clear()
    yield
    load_skia.cache_clear()


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skia", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'talkingmachines\[data\]'$"):
        load_skia()


def test_without_a_library_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "skia.py").write_text("raise ImportError('libEGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r"installed and cannot be loaded \(libEGL.so.1.*libegl1"):
        load_skia()
    monkeypatch.setattr("talkingmachines.cli.doctor._weights", dict)
    monkeypatch.setattr("talkingmachines.cli.doctor._processor", dict)
    monkeypatch.setattr("talkingmachines.cli.doctor._version", lambda name: "144.1")
    packages = examine()["packages"]
    assert isinstance(packages, dict)
    assert "libEGL.so.1" in packages["skia-python"]["problem"] and packages["matplotlib"]["problem"] is None
