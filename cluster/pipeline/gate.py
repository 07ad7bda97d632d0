"""The gate: is a candidate at most so much worse than the bundle that serves?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.pipeline.config import GateRule

if TYPE_CHECKING:
    from ensemble.versus import Paired, Versus

FIRST = "the first bundle: nothing to compare with"


def judge(rules: Sequence[GateRule], found: Sequence["Paired"]) -> list[dict[str, Any]]:
    """A row a rule: both values, by how much the candidate is worse, the bound, whether it holds.

    A bound that cannot be told does not hold: nothing is known then.
    """
    known = {one.metric: one for one in found}
    rows = []
    for rule in rules:
        one = known[rule.metric]
        holds = one.bound is not None and one.bound <= rule.margin
        rows.append({**one.model_dump(), "margin": rule.margin, "holds": holds})
    return rows


def tell(rows: Sequence[dict[str, Any]], versus: "Versus") -> str:
    """The verdict in words, with the figures of the first rule that fails, else of all."""
    failed = [row for row in rows if not row["holds"]]
    told = "; ".join(_words(row) for row in failed[:1] or rows)
    left_out = f", {versus.seen} left out as known to a bundle" if versus.seen else ""
    return f"{told} ({versus.n_images} sealed test images{left_out})"


def _words(row: dict[str, Any]) -> str:
    if row["bound"] is None or row["worse"] is None:
        return f"{row['metric']} cannot be told: too few images of one class, or too few lesions"
    verb = "within" if row["holds"] else "over"
    return (
        f"{row['metric']} {row['candidate']:.4f} against {row['serving']:.4f}, at worst "
        f"{row['bound']:+.4f} with 95% confidence, {verb} the margin of {row['margin']:g}"
    )
