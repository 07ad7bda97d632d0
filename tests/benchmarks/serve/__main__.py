"""How fast the service is, beside its limit and beside other servers, in one run on one machine.

Tables go to stderr, one line of JSON to stdout. `--quick` takes some minutes, all of it about
forty. The other servers get an environment of their own, .venv-peers, on the first run.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from cluster.console import messages, print_json, table
from tests.benchmarks.serve.contenders import ROWS
from tests.benchmarks.serve.course import Course, Plan

EXTRAS = ("overload", "swap", "cascade", "int8")
QUICK = {"seconds": 2.0, "repeats": 1, "overload_s": 10.0, "clients": (1, 32)}


def main() -> None:
    given = _parse()
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-serve-"))
        )
        course = Course(folder, _plan(given), bundle=given.bundle, config=given.config)
        figures = course.go(given.rows, given.extras, announce=messages.print)
    for title, rows in course.tables:
        table(title, rows, to=messages)
    print_json(figures)


def _leave(number: int, _: object) -> None:
    """End by way of every `finally`; a second signal must not cut short what they clear away."""
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    sys.exit(128 + number)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="of one window")
    parser.add_argument("--repeats", type=int, help="windows of one server and number of clients")
    parser.add_argument("--clients", type=lambda text: tuple(map(int, text.split(","))))
    parser.add_argument("--rows", type=_names(("limit", *ROWS)), default=ROWS)
    parser.add_argument("--extras", type=_names(EXTRAS), default=EXTRAS)
    parser.add_argument("--overload-s", type=float)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bundle", type=Path, help="a real one, for the cascade and 8 bits")
    parser.add_argument("--config", type=Path, help="the experiment whose images it is asked")
    parser.add_argument("--keep", type=Path, help="folder for images, bundles and logs")
    given = parser.parse_args()
    if (given.bundle is None) != (given.config is None):
        parser.error("--bundle and --config go together")
    return given


def _names(known: tuple[str, ...]):  # type: ignore[no-untyped-def]
    """A parser of names with commas between them; "none" is none of them."""

    def parse(text: str) -> tuple[str, ...]:
        names = () if text == "none" else tuple(text.split(","))
        if wrong := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: none of {', '.join(known)}")
        return names

    return parse


def _plan(given: argparse.Namespace) -> Plan:
    told = {name: getattr(given, name) for name in QUICK if getattr(given, name) is not None}
    return Plan(**((QUICK if given.quick else {}) | told))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
