"""The steps that bring a bundle to a service: gate, canary."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from cluster.pipeline import canary, gate
from cluster.pipeline.inputs import digest_of
from cluster.pipeline.release import release, release_name
from cluster.pipeline.service import bundle_of
from cluster.pipeline.state import Inputs, Outcome
from cluster.pipeline.work import Name, Result, Work
from ensemble.bundle import Bundle, load_bundle


@dataclass(frozen=True)
class Gate:
    """The candidate against the bundle that serves."""

    on: Work
    name: Name = "gate"

    def needless(self) -> str | None:
        return "this bundle serves already" if self.on.serves_already else None

    @cached_property
    def rival(self) -> Bundle | None:
        """What the candidate is compared with."""
        if self.on.served is not None:
            return bundle_of(self.on.served, self.on.config)
        return None if self.on.config.against is None else load_bundle(self.on.config.against)

    def inputs(self) -> Inputs:
        head = self.on.study.head()
        return {
            "candidate": self.on.digest,
            "serving": None if self.rival is None else self.rival.manifest.digest,
            "test": digest_of([head.data_digest, head.splits_hash]),
            "rules": [rule.model_dump() for rule in self.on.config.gate],
            "min_images": self.on.config.min_images,
        }

    def stands(self, _: Outcome) -> bool:
        return True

    def work(self, _: datetime) -> Result:
        if self.rival is None:
            return Result(gate.FIRST, {"first": True})
        from cluster.console import progress_bars
        from ensemble.versus import compare_on_test

        rules = self.on.config.gate
        with progress_bars() as progress:
            versus = compare_on_test(
                self.on.bundle,
                self.rival,
                self.on.study,
                [rule.metric for rule in rules],
                min_images=self.on.config.min_images,
                progress=lambda done, n: progress("gate", done, n),
            )
        rows = gate.judge(rules, versus.differences)
        outcome: dict[str, Any] = versus.model_dump(mode="json", exclude={"differences"})
        return Result(
            gate.tell(rows, versus), {**outcome, "rules": rows}, ok=all(r["holds"] for r in rows)
        )


@dataclass(frozen=True)
class Canary:
    """A release of the candidate at the service."""

    on: Work
    name: Name = "canary"

    def needless(self) -> str | None:
        if self.on.admin is None:
            return "pipeline.service names no service"
        return "this bundle serves already" if self.on.serves_already else None

    def inputs(self) -> Inputs:
        return {
            "candidate": self.on.digest,
            "serving": None if self.on.served is None else self.on.served.digest,
            "service": self.on.config.service,
            "rules": self.on.config.canary.model_dump(),
        }

    def stands(self, _: Outcome) -> bool:
        return False  # it would serve, and there would be nothing to do

    def work(self, begun: datetime) -> Result:
        assert self.on.admin is not None  # noqa: S101 - needless said so
        released = release(self.on.bundle, self.on.releases)
        self.on.say(f"release: {released.folder}")
        found = canary.try_release(
            self.on.admin,
            released,
            self.on.config.canary,
            begun=begun,
            around=self.on.around or canary.Surroundings(say=self.on.say),
        )
        outcome = {"release": str(released.folder), "promoted": found.promoted, **found.figures}
        return Result(found.why, outcome, ok=found.promoted, final=found.final)


def tidy(work: Work) -> None:
    """Take back a canary that a pipeline left standing, where another bundle is the candidate."""
    if work.admin is not None:
        canary.withdraw_earlier(work.admin, release_name(work.bundle), work.say)
