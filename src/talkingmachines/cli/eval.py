"""`eval`: how good a preset is, in figures and in pictures."""

import tempfile
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from talkingmachines.cli.avatar_options import DeviceOption, StepsOption
from talkingmachines.cli.console import make_folder, print_json, progress_bar
from talkingmachines.errors import ConfigError, MediaError
from talkingmachines.media.files import reason, replacing

if TYPE_CHECKING:
    import numpy as np

    from talkingmachines.avatar import Avatar
    from talkingmachines.data.synthetic.bank import SpeechBank
    from talkingmachines.evaluation.clips import EvalConfig
    from talkingmachines.evaluation.reader import FaceReader
    from talkingmachines.evaluation.report import Album
    from talkingmachines.teacher import Teacher

BANK_UTTERANCES, BANK_SEED = 150, 1


def evaluate(
    *,
    preset: Annotated[str, typer.Option(help="A preset's name, or a folder with weights.")] = "pocket",
    out: Annotated[Path | None, typer.Option(help="Folder for eval.json and strips of frames to look at.")] = None,
    bank: Annotated[Path | None, typer.Option(help="Held-out speech, .npz; synthesised unless given.")] = None,
    device: DeviceOption = "auto",
    clips: Annotated[int, typer.Option(min=1, help="Clips of speech; p, b and m want many.")] = 20,
    teacher: Annotated[bool, typer.Option("--teacher", help="Measure the teacher instead of the student.")] = False,
    steps: StepsOption = None,
    minutes: Annotated[int, typer.Option(min=0, help="Measure a call of so many minutes, too.")] = 0,
    against_teacher: Annotated[
        bool, typer.Option("--against-teacher", help="Compare with the teacher at 30 steps, too.")
    ] = False,
    stamp: Annotated[bool, typer.Option("--stamp", help="Keep the figures in the weights' metadata.")] = False,
    report: Annotated[Path | None, typer.Option(help="A page with all figures and plots, .html.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a preset on held-out characters, sentences and voices."""
    from talkingmachines.avatar import load
    from talkingmachines.evaluation.clips import EvalConfig
    from talkingmachines.evaluation.evaluate import evaluate as measure
    from talkingmachines.evaluation.reader import load_reader
    from talkingmachines.evaluation.report import Album, check_plots, write_report
    from talkingmachines.teacher import load_teacher
    from talkingmachines.weights import add_metadata, weights_folder

    if steps:
        _check_steps(teacher, stamp)
    if teacher and (minutes or against_teacher):
        raise ConfigError("a long run and a comparison are of the student; leave --teacher out")
    if out is not None:
        make_folder(out)
    if report is not None:
        check_plots()
        make_folder(report.parent)
        if report.is_dir():
            raise ConfigError(f"{report}: this is a folder; --report wants a file, as in {report / 'report.html'}")
    reader = load_reader()
    with Console(stderr=True).status(f"loading {preset}"):
        model: Any = load_teacher(preset, device=device) if teacher else load(preset, device=device, steps=steps)
        rival = load_teacher(preset, device=device) if against_teacher else None
    speech, config = heldout_speech(bank), EvalConfig(speaking_clips=clips)
    look = None if out is None else _strips(out)
    with progress_bar("evaluating") as update:
        figures = measure(model, speech, update, config, reader=reader, look=look)
    album = Album()
    if rival is not None:
        figures["against_teacher"] = _against_teacher(figures, rival, speech, config, reader)
    if minutes:
        figures["long_run"] = _long_run(model, speech, minutes, reader, album)
    steps_said = {} if teacher else {"steps": model.preset.chunk.steps}
    result: dict[str, Any] = {"preset": model.preset.name, **steps_said, **figures}
    if out is not None:
        _write(out / "eval.json", dumps(result, indent=2))
    if json:
        print_json(result)
    else:
        _print_table(figures)
    if stamp:
        add_metadata(weights_folder(preset), "teacher" if teacher else "student", {"evaluation": figures})
    if report is not None:
        write_report(report, result, album.pictures)


def _check_steps(teacher: bool, stamp: bool) -> None:
    """Raises ConfigError for what does not go with steps of one's own."""
    if stamp:
        raise ConfigError("figures of steps of one's own are not kept with the weights; leave out --steps, or --stamp")
    if teacher:
        raise ConfigError("--steps are the student's; leave out --steps, or --teacher")


def _against_teacher(
    figures: dict[str, Any], teacher: "Teacher", speech: "SpeechBank", config: "EvalConfig", reader: "FaceReader"
) -> dict[str, Any]:
    from talkingmachines.evaluation.against import against_teacher

    with progress_bar("the teacher") as update:
        return against_teacher(figures, teacher, speech, update, config, reader=reader)


def _long_run(
    avatar: "Avatar", speech: "SpeechBank", minutes: int, reader: "FaceReader", album: "Album"
) -> dict[str, Any]:
    from talkingmachines.evaluation.longrun import LongRunConfig, long_run

    with progress_bar(f"a call of {minutes} minutes") as update:
        return long_run(avatar, speech, update, LongRunConfig(minutes), reader=reader, look=album)


def heldout_speech(path: Path | None) -> "SpeechBank":
    """The given bank, or one that is synthesised once and kept for the next time."""
    from talkingmachines.data.synthetic.bank import SpeechBank, origin
    from talkingmachines.evaluation.machine import cores

    if path is not None:
        return SpeechBank.load(path)
    kept = _cache_folder() / f"heldout-{BANK_UTTERANCES}-{BANK_SEED}-{origin()}.npz"
    if not kept.exists():
        with progress_bar("synthesising speech") as update:
            SpeechBank.build("heldout", BANK_UTTERANCES, BANK_SEED, update, cores()).save(kept)
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
        with replacing(path) as partial:
            partial.write_text(text + "\n")
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({reason(error)}); choose another --out") from error


def _print_table(figures: dict[str, Any]) -> None:
    from talkingmachines.evaluation.figures import measured

    table = Table("what", "figure", "aim", "measured on")
    for figure in measured(figures):
        table.add_row(figure.label, figure.shown(figures), figure.aim, figure.measured_on(figures))
    Console().print(table)
