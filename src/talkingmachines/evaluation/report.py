"""Everything that was measured, on one page that needs nothing else: a single HTML file."""

import base64
import io
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from talkingmachines import __version__
from talkingmachines.errors import MissingPackageError
from talkingmachines.evaluation.figures import measured
from talkingmachines.evaluation.longrun import COLOURS
from talkingmachines.media.files import cannot_write, replacing
from talkingmachines.types import FPS

PICTURES_EVERY = 15 * FPS
"""Frames of a long run from one that is shown to the next."""

_THUMBNAIL = 112
_SAID = "On characters, sentences and voices that no training saw."
_INK = "#010203"
"""A colour that no plot uses otherwise: it becomes the colour of the page's text, light or dark."""
_HUES = ("#d1495b", "#3a9d5d", "#3f7fd0")


PLOTS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("Sharpness, over the picture's", ("sharpness",), False),
    ("Likeness of the face to the picture, r", ("identity",), False),
    ("Mean of red, green, blue, over minute 1", COLOURS[:3], True),
    ("Spread of red, green, blue, over minute 1", COLOURS[3:], True),
    ("Distance of colours from the picture's, of 255", ("colour_distance",), False),
    ("Motion of head and eyes, over the truth's", ("motion",), False),
    ("Lips, r with the drawn truth", ("lips_r",), False),
    ("Blinks", ("blinks",), False),
    ("Change where chunks meet, over inside", ("border_ratio",), False),
)
"""Title, series, and whether they are shown over their first minute."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #6b7280; --line: #d8dce1; --good: #1a7f45;
  --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181c; --faint: #9aa3ad; --line: #333a42;
  --good: #6cc78f; --bad: #ff8a80; } }
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } p { color: var(--faint); }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.yes { color: var(--good); } .no { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; }
.plots svg { width: 100%; height: auto; }
.minutes { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } figure img { width: 5.5rem; height: auto; }
figcaption { color: var(--faint); font-size: .85rem; }
"""


class Album:
    """Keeps a small picture of a call now and then. Is a `look` of `long_run`."""

    def __init__(self, every: int = PICTURES_EVERY) -> None:
        self.every = every
        self.pictures: list[tuple[int, bytes]] = []
        """Number of the frame, JPEG."""

    def __call__(self, index: int, pixels: np.ndarray) -> None:
        if index % self.every == self.every // 2:
            small = Image.fromarray(pixels).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
            with io.BytesIO() as buffer:
                small.save(buffer, "JPEG", quality=85)
                self.pictures.append((index, buffer.getvalue()))


def check_plots() -> None:
    """Raises MissingPackageError where plots cannot be drawn: better before a long run than after it."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError("a report with plots needs matplotlib: pip install 'talkingmachines[data]'")


def write_report(path: str | Path, figures: dict[str, Any], pictures: Sequence[tuple[int, bytes]] = ()) -> None:
    """The page of `report`, whole or not at all. Raises MediaError when the file cannot be written."""
    path, text = Path(path), report(figures, pictures)
    try:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error


def report(figures: dict[str, Any], pictures: Sequence[tuple[int, bytes]] = ()) -> str:
    """HTML of the groups that are there: those of `evaluate`, `against_teacher` and `long_run`, `preset` and `steps`.

    pictures: frames of the long run with their numbers, as an Album keeps them.
    """
    title = f"TalkingMachines: {figures.get('preset', 'figures')}"
    steps = f" Denoising steps of a chunk: {figures['steps']}." if "steps" in figures else ""
    parts = [f"<h1>{escape(title)}</h1><p>Version {__version__}.{steps} {_SAID}</p>", _table(figures)]
    if "long_run" in figures:
        long = figures["long_run"]
        parts += [f"<h2>A call of {long['minutes']} minutes</h2>", _plots(long), _pictures(pictures), _series(long)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>{''.join(parts)}</body></html>\n"
    )


def _table(figures: dict[str, Any]) -> str:
    """Every figure that was measured, beside its aim."""
    rows = []
    for figure in measured(figures):
        verdict = _VERDICT[figure.reached(figures[figure.group][figure.name])]
        words = [figure.aim, verdict, figure.measured_on(figures)]
        rows.append(_row("td", escape(figure.label), [figure.shown(figures)], words))
    return _framed(_row("th", "What", ["Figure"], ["Aim", "Reached", "Measured on"]), rows)


_VERDICT = {None: "", True: '<span class="yes">yes</span>', False: '<span class="no">not yet</span>'}


def _series(long: dict[str, Any]) -> str:
    """Every series in a line: its first and last minute, and how it goes."""
    rows = []
    for name, values in long["series"].items():
        slope, ratio = long["slopes"][name], long["end_over_start"][name]
        cells = [f"{value:.3f}" for value in (values[0], values[-1], long["means"][name])]
        cells += ["" if ratio is None else f"{ratio:.3f}", "" if slope is None else f"{slope:+.4f}"]
        rows.append(_row("td", escape(name), cells))
    titles = ["First minute", "Last minute", "Mean", "Last over first", "Slope a minute"]
    return _framed(_row("th", "Series", titles), rows)


def _row(tag: str, label: str, numbers: Sequence[str], words: Sequence[str] = ()) -> str:
    """A line of a table in HTML; label and words come escaped. tag: th or td."""
    aligned = "".join(f'<{tag} class="n">{number}</{tag}>' for number in numbers)
    return f"<tr><{tag}>{label}</{tag}>{aligned}{''.join(f'<{tag}>{word}</{tag}>' for word in words)}</tr>"


def _framed(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _pictures(pictures: Sequence[tuple[int, bytes]]) -> str:
    minutes: dict[int, list[str]] = {}
    for index, jpeg in pictures:
        data = base64.b64encode(jpeg).decode()
        seconds = index // FPS
        image = f'<img alt="{seconds // 60}:{seconds % 60:02}" src="data:image/jpeg;base64,{data}">'
        minutes.setdefault(seconds // 60, []).append(image)
    shown = [
        f"<figure>{''.join(images)}<figcaption>minute {minute + 1}</figcaption></figure>"
        for minute, images in minutes.items()
    ]
    return f'<div class="minutes">{"".join(shown)}</div>' if shown else ""


def _plots(long: dict[str, Any]) -> str:
    drawn = [_plot(title, [long["series"][name] for name in names], over_first) for title, names, over_first in PLOTS]
    return f'<div class="plots">{"".join(drawn)}</div>'


def _plot(title: str, series: Sequence[Sequence[float]], over_first: bool) -> str:
    """An <svg> of values by minute."""
    check_plots()
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # A seed of its own for each plot, or two of them on one page would share the names of their parts.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 9, "font.family": "sans-serif"}):
        canvas = Figure(figsize=(4, 2.2), layout="constrained")
        axes = canvas.subplots()
        hues = _HUES if len(series) > 1 else _HUES[2:]
        for values, hue in zip(series, hues, strict=False):
            shown = np.array(values) / (values[0] or 1) if over_first else np.array(values)
            axes.plot(np.arange(1, len(values) + 1), shown, color=hue, marker="." if len(values) < 20 else None)
        low, high = axes.get_ylim()
        # Differences of a few in a hundred are not to look like a landslide.
        room = max(0.0, 0.1 * max(abs(low), abs(high)) - (high - low)) / 2
        axes.set_ylim(low - room, high + room)
        axes.set_title(title, fontsize=10, color=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("minute", color=_INK)
        axes.tick_params(colors=_INK)
        axes.grid(color=_INK, alpha=0.12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        with io.StringIO() as text:
            nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
            canvas.savefig(text, format="svg", transparent=True, metadata=nothing)
            svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")
