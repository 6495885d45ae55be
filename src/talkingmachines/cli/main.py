"""The one command, `talkingmachines`. torch is imported by the commands that need it, when they run."""

import errno
import sys
from typing import Annotated, Any

import typer

from talkingmachines import __version__
from talkingmachines.cli import data
from talkingmachines.cli.bench import bench
from talkingmachines.cli.call import call
from talkingmachines.cli.convert import convert
from talkingmachines.cli.distill import distill
from talkingmachines.cli.doctor import doctor
from talkingmachines.cli.eval import evaluate
from talkingmachines.cli.generate import demo, generate
from talkingmachines.cli.livekit import livekit
from talkingmachines.cli.train import train
from talkingmachines.errors import TalkingMachinesError
from talkingmachines.malloc import tune_malloc
from talkingmachines.media.files import reason

UsageError: Any = typer.BadParameter.__mro__[1]
"""The parser's base of all wrong usage, which typer does not export under a name of its own."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 2 for what a user can mend, 130 when interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    tune_malloc()
    try:
        result = build_app()(args=arguments or ["--help"], prog_name="talkingmachines", standalone_mode=False)
    except (TalkingMachinesError, UsageError) as error:
        message = str(error) if isinstance(error, TalkingMachinesError) else error.format_message()
        print(f"talkingmachines: error: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"talkingmachines: error: the disk is full{where}; make room, then run this again", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        result = 130
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        print(
            f"talkingmachines: error: {reason(error)}: ask for less (--size, --sessions, --max-calls), take --fp8 on a "
            "GPU, or end what else uses the memory",
            file=sys.stderr,
        )
        return 2
    if result == 130:
        print("talkingmachines: interrupted", file=sys.stderr)
    return result if isinstance(result, int) else 0


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Of a GPU by its class, which only torch could name; of the processor by torch's words."""
    words = "can't allocate memory"
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or words in str(error)


def build_app() -> typer.Typer:
    """The command with all its subcommands."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    app.command()(generate)
    app.command()(demo)
    app.command()(call)
    app.command()(livekit)
    app.command()(doctor)
    app.add_typer(data.app, name="data")
    app.command()(train)
    app.command()(distill)
    app.command()(convert)
    app.command("eval")(evaluate)
    app.command()(bench)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"talkingmachines {__version__}")
        raise typer.Exit()


def _root(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Give it one picture of a character and speech, and it makes a video of that character speaking."""
