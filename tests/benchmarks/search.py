"""How fast and how large: python -m tests.benchmarks.search [--only PARTS] [--quick].

Tables and progress go to stderr, one line of JSON to stdout. The parts:
baseline    what a user would write instead, against the search with and without pruning
efficiency  the share of the machine's time that `consilium search` spends in training steps: of
            the two searches above, or of the config as it stands
slots       how soon a slot begins its next trial; of the searches above, or of one of its own
scale       a thousand trials that sleep, on 64 slots of a simulated cluster
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from cluster.console import messages, print_json
from tests.benchmarks.command import Finished, leave_when_told, search_in_process
from tests.benchmarks.contest import Contest, show_contest
from tests.benchmarks.efficiency import show_efficiency, slot_gaps
from tests.benchmarks.material import Material, draw_params, find_material, write_variant
from tests.benchmarks.scale import Size, measure_scale, show_scale

PARTS = ("baseline", "efficiency", "slots", "scale")
KEYS = ("compute_efficiency", "ratio_unpruned", "ratio_pruned", "slot_gap_s", "scale_overhead")


class Bench:
    """The parts, and the searches they leave for one another."""

    def __init__(
        self, folder: Path, *, quick: bool, trials: int, epochs: int, channels_last: bool
    ) -> None:
        self._folder, self._trials, self._quick = folder, trials, quick
        self._material: Material = find_material(folder, quick=quick)
        params = draw_params(self._material.config, trials)
        self._contest = Contest(self._material, folder / "contest", params, epochs, channels_last)
        self._searches: list[Finished] = []
        self.figures: dict[str, float | None] = dict.fromkeys(KEYS)
        messages.print(f"On {self._material.what}")

    def baseline(self) -> None:
        messages.rule("a user's loop")
        user = self._contest.user()
        contenders = [user]
        for pruned in (False, True):
            name = "pruned" if pruned else "unpruned"
            messages.rule(f"consilium, {name}")
            ours, done = self._contest.ours(pruned=pruned)
            self._searches.append(done)
            contenders.append(ours)
            self.figures[f"ratio_{name}"] = user.seconds / ours.seconds
            self.figures[f"best_nll_{name}"] = ours.best["nll"]
        self.figures["best_nll_user"] = user.best["nll"]
        show_contest(self._contest, contenders)

    def efficiency(self) -> None:
        messages.rule("efficiency")
        if self._searches:
            for name, done in zip(("", "_pruned"), self._searches, strict=True):
                figure = show_efficiency(done, f"{self._material.what}{name.replace('_', ', ')}")
                self.figures[f"compute_efficiency{name}"] = figure
            return
        file = write_variant(
            self._material.config,
            self._folder / "efficiency",
            budget={"trials": self._trials, "minutes": None},
        )
        done = search_in_process(file)
        self._searches.append(done)
        self.figures["compute_efficiency"] = show_efficiency(done, self._material.what)

    def slots(self) -> None:
        messages.rule("slots")
        if not self._searches:
            self._searches.append(self._contest.ours(pruned=True)[1])
        gaps = slot_gaps(self._searches)
        median, most = statistics.median(gaps), max(gaps)
        self.figures |= {"slot_gap_s": median, "slot_gap_max_s": most}
        messages.print(
            f"From a trial's end to the first training step of the next in its worker: median "
            f"{median:.2f} s, at most {most:.2f} s, of {len(gaps)}. The longest are of image sizes "
            "that are decoded then."
        )

    def scale(self) -> None:
        messages.rule("scale")
        size = Size(trials=40, nodes=2, cpus=4, seconds=0.5) if self._quick else Size()
        found = measure_scale(self._material.config, self._folder / "scale", size)
        self.figures |= found
        show_scale(found, size)


def main() -> None:
    """Run the parts that are asked for, in their order."""
    parser = argparse.ArgumentParser(prog="make bench-search", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--quick", action="store_true", help="tiny data and numbers, to try it")
    parser.add_argument("--trials", type=int, help="of the searches; 12, quick 3")
    parser.add_argument("--epochs", type=int, help="of the contest; 5, quick 2")
    parser.add_argument("--channels-last", action="store_true", help="for the user's loop, too")
    parser.add_argument("--output", type=Path, help="folder that keeps the studies")
    words = parser.parse_args()
    only = words.only.split(",")
    if unknown := set(only) - set(PARTS):
        parser.error(f"--only: no part {unknown.pop()!r}; the parts are {', '.join(PARTS)}")
    leave_when_told()
    if words.output:
        words.output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="bench") as scratch:
        bench = Bench(
            words.output.resolve() if words.output else Path(scratch),
            quick=words.quick,
            trials=words.trials or (3 if words.quick else 12),
            epochs=words.epochs or (2 if words.quick else 5),
            channels_last=words.channels_last,
        )
        for part in PARTS:
            if part in only:
                getattr(bench, part)()
    print_json(bench.figures)


if __name__ == "__main__":
    main()
