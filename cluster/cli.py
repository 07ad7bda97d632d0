"""The `consilium` command: its groups of commands, and how it ends."""

import errno
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from cluster.commands.batch import batch
from cluster.commands.bundles import bundles
from cluster.commands.doctor import doctors
from cluster.commands.jobs import jobs
from cluster.commands.keys import keys_app
from cluster.commands.pipeline import pipelines
from cluster.commands.services import services
from cluster.commands.sites import sites
from cluster.commands.studies import studies
from search.errors import ConsiliumError

app = typer.Typer(
    help="Search image classifiers, ensemble and calibrate the best, serve them over HTTP. "
    "Educational and research use; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for group in (studies, bundles, sites, batch, services, pipelines, jobs, doctors):
    app.add_typer(group)
app.add_typer(keys_app, name="key")

INTERRUPTED = 130  # what typer returns in the place of a Ctrl-C


def run(words: Sequence[str] | None = None) -> None:
    """The command on these words, or the process's; errors come through."""
    given = None if words is None else list(words)
    if app(args=given, prog_name="consilium", standalone_mode=False) == INTERRUPTED:
        raise KeyboardInterrupt


def main(words: Sequence[str] | None = None) -> None:
    """The command for people: a mistake of theirs is one line and exit code 2, anything else 1."""
    try:
        run(words)
    except ConsiliumError as error:
        _stop(str(error), error.exit_code)
    except OSError as error:
        _stop(_mend(error), 2)
    except typer.Abort:
        _stop("stopped", 1)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on where it stopped", 1)
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        if message:  # none where no command was given: then the help is printed
            _stop(f"{message}; see consilium --help", 2)
        sys.exit(2)


def _mend(error: OSError) -> str:
    """One line for a file or disk that does not do as asked; any other error comes through."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        reason = (error.strerror or "not allowed").lower()
        return f"{where}{reason}; choose another output folder"
    if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG):
        return f"{where}{(error.strerror or 'not there').lower()}; check the path"
    raise error


def _stop(message: str, code: int) -> None:
    line = " ".join(message.split())
    print(f"consilium: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
