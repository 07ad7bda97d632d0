"""A user's own loop, and the search with and without pruning: the same params on the same fold."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.console import messages, table
from search.config import load_config
from search.data.splits import fold_rows
from search.params import Params
from search.study.intake import take_in
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import fold_images
from tests.benchmarks.command import Finished, python, search_in_process
from tests.benchmarks.material import Material, write_portfolio, write_variant


@dataclass(frozen=True)
class Contender:
    """How one of them did.

    Attributes:
        seconds: from its start until its last file was written.
        without_ray: the same less the start of Ray.
        best: metrics of the best epoch of all trials, by NLL.
    """

    name: str
    seconds: float
    without_ray: float
    epochs: int
    best: dict[str, float]

    def row(self, n_trials: int, baseline: "Contender") -> dict[str, Any]:
        return {
            "contender": self.name,
            "seconds": f"{self.seconds:.0f}",
            "epochs": self.epochs,
            "trials/h": f"{3600 * n_trials / self.seconds:.0f}",
            "ratio": f"{baseline.seconds / self.seconds:.2f}",
            "ratio, Ray start excluded": f"{baseline.seconds / self.without_ray:.2f}",
            "best nll": self.best["nll"],
            "its auroc": self.best.get("auroc", float("nan")),
        }


@dataclass(frozen=True)
class Contest:
    """The material, and what all contenders train.

    Attributes:
        channels_last: the user's loop knows that this memory format is the quicker one on CPUs.
    """

    material: Material
    folder: Path
    params: Sequence[Params]
    epochs: int
    channels_last: bool

    def user(self) -> Contender:
        """A loop of trials over the image files, one after the other."""
        folder = self.folder / "user"
        config = load_config(self._variant("user", pruned=False))
        head = take_in(config, StudyFolder(config.study_folder))
        images = fold_images(StudyFolder(config.study_folder))
        _, val = fold_rows(images, 0)
        rows = images[["path", "label"]].assign(validates=images.index.isin(val))
        rows.to_csv(folder / "images.csv", index=False)
        task = {
            "params": [params.model_dump() for params in self.params],
            "epochs": self.epochs,
            "channels_last": self.channels_last,
            "n_classes": len(head.classes),
            "weights": config.weights.model_dump(mode="json"),
        }
        (folder / "task.json").write_text(json.dumps(task))
        begin = python("tests.benchmarks.user_loop", str(folder))
        found = json.loads((folder / "results.json").read_text())
        seconds = found["end"] - begin
        best = min(found["trials"], key=lambda metrics: float(metrics["nll"]))
        n_epochs = self.epochs * len(self.params)
        return Contender("a user's loop", seconds, seconds, n_epochs, best)

    def ours(self, *, pruned: bool) -> tuple[Contender, Finished]:
        """The command on a portfolio of the same params.

        Raises:
            RuntimeError: it did not train all of them.
        """
        name = "pruned" if pruned else "unpruned"
        done = search_in_process(self._variant(name, pruned=pruned))
        records = done.folder.records()
        failed = [r.error or r.status for r in records if r.status not in ("complete", "pruned")]
        if failed or {r.params for r in records} != set(self.params):
            raise RuntimeError(f"{done.folder.path}: other trials than asked for: {failed}")
        n_epochs = sum(len(r.epochs) for r in records)
        without_ray = done.seconds - done.ray_seconds
        best = min(map(_best, records), key=lambda metrics: metrics["nll"])
        return Contender(f"consilium, {name}", done.seconds, without_ray, n_epochs, best), done

    def _variant(self, name: str, *, pruned: bool) -> Path:
        portfolio = self.folder / f"{name}-portfolio.yaml"
        write_portfolio(portfolio, list(self.params))
        return write_variant(
            self.material.config,
            self.folder / name,
            portfolio={"recipes": [], "override": {}, "file": str(portfolio)},
            fidelity={
                "max_epochs": self.epochs,
                "grace": 1 if pruned else self.epochs,
                "reduction": 3,
                "finalists": 0,
            },
            budget={"trials": len(self.params), "minutes": None},
        )


def _best(record: TrialRecord) -> dict[str, float]:
    """Metrics of the epoch with the least NLL, as the user's loop picks it."""
    known = [{k: v for k, v in epoch.items() if v is not None} for epoch in record.epochs]
    return min(known, key=lambda metrics: metrics["nll"])


def show_contest(contest: Contest, contenders: Sequence[Contender]) -> None:
    """The contenders side by side; the first is what the others are compared with."""
    n = len(contest.params)
    rows = [contender.row(n, contenders[0]) for contender in contenders]
    title = f"{contest.material.what}: {n} trials of at most {contest.epochs} epochs"
    table(title, rows, to=messages)
    memory = "channels-last memory" if contest.channels_last else "torch's default memory format"
    messages.print(
        "Seconds run from each command's start until its last file is written, imports included. "
        "Consilium's include the audit, decoding, Ray's start and the report; the user's loop is "
        "given the fold's image paths. Both take all cores: the loop one DataLoader worker a core "
        "and torch's default threads, consilium one thread a trial and as many trials as cores. "
        f"The loop keeps to {memory}."
    )
