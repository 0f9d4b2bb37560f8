"""The command ``autoprune``: one module per subcommand.

Exit codes: 0 success, 1 the run failed, 2 wrong use. An error is one readable sentence; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import sys

import click
from rich.text import Text

from autoprune.cli.apply import apply
from autoprune.cli.calibrate import calibrate
from autoprune.cli.export import export
from autoprune.cli.list import list_
from autoprune.cli.profile import profile
from autoprune.cli.report import report
from autoprune.cli.search import search
from autoprune.cli.select import select
from autoprune.cli.status import status
from autoprune.cli.streams import err
from autoprune.errors import AutopruneError, UsageError, one_line


def main() -> None:
    """Run the command and exit with its code."""
    debug = "--debug" in sys.argv
    try:
        code = command.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        err.print("autoprune: interrupted")
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        err.print(Text.assemble(("autoprune: error: ", "bold red"), _sentence(error)), soft_wrap=True)
        sys.exit(2 if isinstance(error, (UsageError, *_WRONG_PATHS)) else 1)


_WRONG_PATHS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def _sentence(error: Exception) -> str:
    if isinstance(error, AutopruneError):
        return str(error)
    if not isinstance(error, OSError):
        return f"{one_line(error)}; this is not foreseen: 'autoprune --debug ...' shows where it comes from"
    where = f" {error.filename2 or error.filename}" if error.filename else ""
    refusal = f"the system refused to read or write{where} ({error.strerror or error})"
    if isinstance(error, _WRONG_PATHS):
        return f"{refusal}; give another path"
    return f"{refusal}; free some space, then run the same command again: what was finished is kept"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autoprune")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(debug: bool) -> None:
    """Search which layers of a trained network to prune, how much, and in which pattern, for a device."""


for _command in (profile, search, status, report, select, apply, export, calibrate, list_):
    command.add_command(_command)
