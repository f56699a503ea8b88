"""The command line: reads the input of a command, calls one part, and turns errors into exit codes.

Exit codes: 0, success; 1, a run or a check failed; 2, bad input, reported in one line. The commands are in
`benchmark/commands`. Each imports its part inside its function, so that `--help`, `plan` and `report` import
no torch.
"""

import errno
import logging
import sys
from typing import Annotated, NoReturn

import typer

import benchmark
from benchmark.commands.dashboard import dashboard
from benchmark.commands.fit import fit
from benchmark.commands.list import list_
from benchmark.commands.matrix import plan, run, status, sync
from benchmark.commands.memory import memory
from benchmark.commands.options import say
from benchmark.commands.regress import regress
from benchmark.commands.report import report
from benchmark.commands.rescore import rescore
from benchmark.commands.schedule import schedule
from benchmark.commands.speed import speed
from benchmark.commands.tables import tables
from benchmark.errors import UserError
from benchmark.lifetime import outlive_readers, stoppable

app = typer.Typer(
    help=benchmark.__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
HELP = {"help_option_names": ["-h", "--help"]}


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"hift-bench {version('hift-benchmark')}\n")
        raise typer.Exit


@app.callback(context_settings=HELP)
def _hift_bench(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    pass


for command in (
    plan,
    run,
    status,
    report,
    sync,
    dashboard,
    regress,
    rescore,
    schedule,
    speed,
    tables,
    memory,
    fit,
):
    app.command(context_settings=HELP)(command)
app.command(name="list", context_settings=HELP)(list_)
hift_bench = typer.main.get_command(app)


LONGEST = 2000
"""Characters of an error that are printed."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""The errors of a full disk and the like, which do not always name the file."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as typer returns it, and after SIGTERM."""


def main() -> None:
    """Entry point: bad input is one line on stderr and exit 2."""
    outlive_readers()
    from tasks.base import TaskError

    # peft imports bitsandbytes, which warns about kernels that only qlora would use
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        with stoppable():
            code = hift_bench.main(prog_name="hift-bench", standalone_mode=False)
        sys.stdout.flush()  # here a full disk is said, and not at the exit
    except (UserError, TaskError) as error:
        _refuse(" ".join(str(error).split()))
    except typer.Abort:
        code = INTERRUPTED
    except OSError as error:
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        _refuse(f"{where}{(error.strerror or str(error)).lower()}")
    except Exception as error:
        if not hasattr(error, "format_message"):  # only click's usage errors have it
            raise
        _refuse(error.format_message())
    if code == INTERRUPTED:
        say("hift-bench: interrupted; the same command continues from here")
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> NoReturn:
    """Say why the input is refused, without the middle of a long message, and exit."""
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    say(f"hift-bench: {message}")
    sys.exit(2)
