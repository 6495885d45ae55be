import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talkingmachines.errors import MediaError
from talkingmachines.evaluation.figures import FIGURES, Figure
from talkingmachines.evaluation.longrun import LOOKS
from talkingmachines.evaluation.report import PLOTS, Album, report, write_report

pytest.importorskip("skia")
pytest.importorskip("matplotlib")

SERIES = (*LOOKS, "lips_r", "shut_in_silence", "motion", "blinks", "border_ratio")


def long_figures(minutes: int = 3) -> dict[str, Any]:
    series = {name: [1.0 - 0.1 * index for index in range(minutes)] for name in SERIES}
    return {
        "minutes": minutes,
        "drift_sharpness": -0.2,
        "drift_identity": 0.01,
        "drift_colour": 0.0,
        "border_ratio": 1.1,
        "still_minutes": 0,
        "means": dict.fromkeys(SERIES, 0.9),
        "slopes": dict.fromkeys(SERIES, -0.1 if minutes > 1 else None),
        "end_over_start": dict.fromkeys(SERIES, 0.8) | {"blinks": None},
        "series": series,
    }


def test_every_aim_is_said_and_judged() -> None:
    ratios = dict.fromkeys(("lips_r", "identity", "top1", "motion"), 0.96) | {"clips": 26}
    page = report({"preset": "a<b", "steps": 4, "long_run": long_figures(), "against_teacher": ratios})
    found = re.findall(r"<tr><td>(.*?)</td><td.*?>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", page)
    lines = {line[0]: line[1:] for line in found}
    drifted = lines["sharpness, last minute to first"]
    assert drifted[:2] == ("-20.0%", "-2.0% to +2.0%") and "not yet" in drifted[2] and drifted[3] == "3 minutes"
    assert "yes" in lines["change where chunks meet over inside"][2]
    assert lines["lip r, over the teacher&#x27;s"][:2] == ("0.960", "at least 0.950")
    assert "not yet" in lines["likeness, over the teacher&#x27;s"][2]
    assert "autoencoder" not in page, "what was not measured is not shown"
    assert "a&lt;b" in page and "a<b" not in page and "steps of a chunk: 4." in page


def test_aims_include_their_ends() -> None:
    both = Figure("x", "g", "n", low=0.8, high=1.2)
    assert [both.reached(v) for v in (0.79, 0.8, 1.2, 1.21)] == [False, True, True, False]
    assert Figure("x", "g", "n").reached(5) is both.reached(None) is None and Figure("x", "g", "n").aim == ""
    assert Figure("x", "g", "n", "{:.1f}", high=2).aim == "at most 2.0"
    assert len({(line.group, line.name) for line in FIGURES}) == len(FIGURES)


def test_the_page_needs_nothing_else() -> None:
    album = Album(every=10)
    for index in range(2000):
        album(index, np.full((64, 64, 3), index % 256, np.uint8)) if index % 5 == 0 else None
    page = report({"long_run": long_figures(1)}, album.pictures[:120])
    assert [index for index, _ in album.pictures[:3]] == [5, 15, 25]
    assert page.count("<svg") == len(PLOTS) and page.count("data:image/jpeg;base64,") == 120
    assert "minute 1</figcaption>" in page and "prefers-color-scheme: dark" in page and "currentColor" in page
    assert "<script" not in page and "<link" not in page and "@import" not in page
    links = re.findall(r"(?:src|href)=\"(.*?)\"|url\((.*?)\)", page)
    assert all((a or b).startswith(("#", "data:")) for a, b in links)
    named = re.findall(r"url\((#.*?)\)|xlink:href=\"(#.*?)\"", page)
    assert all(page.count(f'id="{(a or b)[1:]}"') == 1 for a, b in named), "parts of two plots share a name"


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    write_report(path, {"preset": "tiny"})
    first = path.read_text()
    assert first.startswith("<!doctype html>") and first.endswith("</html>\n")

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("talkingmachines.media.files.os.replace", disk_full)
    with pytest.raises(MediaError, match="No space left"):
        write_report(path, {"preset": "pocket"})
    assert path.read_text() == first and list(tmp_path.iterdir()) == [path]
    with pytest.raises(MediaError, match="cannot be written"):
        write_report(tmp_path / "missing" / "report.html", {})
