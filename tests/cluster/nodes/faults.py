"""What came of a fault: the row that tests assert on and `make bench-cluster` prints."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Fault:
    """One fault under load.

    Attributes:
        fault: what was killed.
        load: what went on meanwhile.
        lost: trials, rows or bundles that are not there in the end, and should be.
        errors: what callers saw fail; of a search, commands that had to be given again.
        recovery_s: seconds from the fault until all was as before.
        gap_s: longest time without a good answer; None where nobody asked.
    """

    fault: str
    load: str
    lost: int
    errors: int
    recovery_s: float
    gap_s: float | None = None

    def row(self) -> dict[str, object]:
        """As JSON and tables have it; seconds with one digit."""
        return {k: round(v, 1) if isinstance(v, float) else v for k, v in asdict(self).items()}
