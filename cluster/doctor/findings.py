"""What a check finds: whether it is well, what was seen, and the mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from search.errors import ConsiliumError

Level = Literal["ok", "advice", "broken"]
SHOWN: dict[Level, str] = {"ok": "ok", "advice": "advice", "broken": "MEND"}


@dataclass(frozen=True)
class Finding:
    """One check on one machine.

    Attributes:
        check: what was looked at.
        level: advice is no failure.
        seen: the value, or what went wrong.
        mend: what to do; empty where all is well.
    """

    check: str
    level: Level
    seen: str
    mend: str = ""


@dataclass(frozen=True)
class Row:
    """A finding, and the node it is of."""

    where: str
    finding: Finding

    def to_json(self) -> dict[str, str]:
        return {"where": self.where, **asdict(self.finding)}

    def shown(self) -> dict[str, str]:
        """The columns of the table."""
        found = self.finding
        return {
            "where": self.where,
            "check": found.check,
            "": SHOWN[found.level],
            "seen": found.seen,
            "mend": found.mend,
        }


def judged(check: str, seen: str, mend: str, *, well: bool, otherwise: Level = "broken") -> Finding:
    """A finding whose mend is left out where all is well."""
    return Finding(check, "ok", seen) if well else Finding(check, otherwise, seen, mend)


@contextmanager
def refused(check: str, mend: str, found: list[Finding]) -> Iterator[None]:
    """Turn what goes wrong within into a finding; our own errors bring their mend along."""
    try:
        yield
    except ConsiliumError as error:
        seen, _, next_step = str(error).rpartition("; ")
        found.append(Finding(check, "broken", seen or str(error), next_step if seen else mend))
    except Exception as error:  # whatever a driver, a disk or a library says is the finding
        seen = " ".join(str(error).split())[:200] or type(error).__name__
        found.append(Finding(check, "broken", seen, mend))
