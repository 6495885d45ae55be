"""`eval`: how good a preset is, in figures and in pictures."""

import tempfile
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from talkingmachines import __version__
from talkingmachines.cli.console import make_folder, print_json, progress_bar
from talkingmachines.errors import MediaError
from talkingmachines.media.files import reason

if TYPE_CHECKING:
    import numpy as np

    from talkingmachines.data.synthetic.bank import SpeechBank

BANK_UTTERANCES, BANK_SEED = 150, 1

ROWS = (
    ("autoencoder, PSNR", "vae", "psnr_db", "{:.1f} dB", "clips"),
    ("autoencoder, error at latent borders", "vae", "border_ratio", "{:.2f} of that inside", "clips"),
    ("lips, r with the truth", "lips", "r", "{:.3f}", "clips"),
    ("lips, best lag", "lips", "lag_frames", "{:+d} frames", "clips"),
    ("lips, shut where they must be", "lips", "closed", "{:.1%}", "clips"),
    ("lips, r with real recordings", "lips", "real_r", "{:.3f}", "real_clips"),
    ("the same character", "identity", "top1", "{:.1%}", "frames"),
    ("background, sharpness", "background", "sharpness", "{:.2f} of the autoencoder's", "clips"),
    ("motion while listening", "motion", "listening", "{:.2f} of the truth's", "clips"),
    ("blinks a minute", "motion", "blinks_per_minute", "{:.1f}", "clips"),
    ("still pictures", "motion", "still_clips", "{:d}", "clips"),
)


def evaluate(
    *,
    preset: Annotated[str, typer.Option(help="A preset's name, or a folder with weights.")] = "pocket",
    out: Annotated[Path | None, typer.Option(help="Folder for eval.json and strips of frames to look at.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Held-out speech, .npz; synthesised unless given.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a preset on held-out characters, sentences and voices."""
    from talkingmachines import avatar
    from talkingmachines.evaluation.evaluate import evaluate as measure
    from talkingmachines.evaluation.reader import load_reader

    if out is not None:
        make_folder(out)
    reader = load_reader()
    with Console(stderr=True).status(f"loading {preset}"):
        model = avatar.load(preset, device=device)
    speech = heldout_speech(bank)
    look = None if out is None else _strips(out)
    with progress_bar("evaluating") as update:
        figures = measure(model, speech, update, reader=reader, look=look)
    result: dict[str, object] = {"preset": model.preset.name, **figures}
    if out is not None:
        _write(out / "eval.json", dumps(result, indent=2))
    if json:
        print_json(result)
    else:
        _print_table(figures)


def heldout_speech(path: Path | None) -> "SpeechBank":
    """The given bank, or one that is synthesised once and kept for the next time."""
    from talkingmachines.data.synthetic.bank import SpeechBank

    if path is not None:
        return SpeechBank.load(path)
    kept = _cache_folder() / f"heldout-{BANK_UTTERANCES}-{BANK_SEED}-{__version__}.npz"
    if not kept.exists():
        with progress_bar("synthesising speech") as update:
            SpeechBank.build("heldout", BANK_UTTERANCES, BANK_SEED, update).save(kept)
    return SpeechBank.load(kept)


def _cache_folder() -> Path:
    """The user's, or a temporary one where that cannot be written."""
    folder = Path.home() / ".cache" / "talkingmachines"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="talkingmachines-"))


def _strips(out: Path) -> "Callable[[str, np.ndarray | None, np.ndarray], None]":
    """Writes every clip as a strip of frames: the truth above, generated below."""
    from talkingmachines.evaluation.evaluate import strip
    from talkingmachines.media import write_image

    return lambda name, true, made: write_image(out / f"{name}.png", strip(true, made))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({reason(error)}); choose another --out") from error


def _print_table(figures: dict[str, Any]) -> None:
    table = Table("what", "figure", "measured on")
    for label, group, name, form, count in ROWS:
        value = figures[group][name]
        shown = "not measured" if value is None else form.format(value)
        table.add_row(label, shown, f"{figures[group][count]} {count.removeprefix('real_')}")
    Console().print(table)
