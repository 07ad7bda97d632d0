"""What goes on beside the requests: following the rollout, counting, comparing, the audit log."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from search.errors import ConsiliumError
from serving.config import ServingConfig
from serving.monitor.audit import AuditEntry, AuditLog
from serving.monitor.drift import Drift
from serving.monitor.metrics import Metrics
from serving.monitor.tracing import tracer_for
from serving.problems import ProblemError
from serving.schemas import ImagePrediction, VersionState
from serving.scoring.answer import Seen, watched_probability
from serving.scoring.board import Desired
from serving.scoring.compare import Comparison
from serving.scoring.options import Options
from serving.scoring.panel import Panel, Verdict
from serving.scoring.versions import Live, Versions

KEPT_DRIFTS = 3  # of bundles that answered before
FOLLOW_S = 1.0  # between two looks at what an admin asked for on another replica
COMPARED = 4 << 20  # bytes of the largest file that is scored a second time
logger = logging.getLogger("consilium.rollout")

SecondOpinion = Callable[[Panel, bytes], Verdict]


class Watch:
    """One replica's watchers. None of them holds up an answer, but for an audit log that is asked
    for: what cannot be written down is not answered.
    """

    def __init__(self, config: ServingConfig, *, replica: str) -> None:
        self.metrics = Metrics()
        self.tracer = tracer_for(config.traces)
        self.comparison = Comparison(self.metrics.compared)
        self._audit = None if config.audit is None else AuditLog(config.audit, replica=replica)
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._window = config.drift_window
        self._drifts: dict[str, Drift] = {}

    def note(self, panel: Panel, verdict: Verdict, seen: Seen, *, version: str) -> None:
        """Count one prediction of the bundle that the rollout calls `version`."""
        probability = watched_probability(panel, verdict)
        self.metrics.predicted(
            version,
            None if verdict.point is None else verdict.point.name,
            verdict.decision,
            probability,
            panel.manifest.classes[int(verdict.probs.argmax())],
            verdict.novel,
            len(verdict.member_probs),
        )
        if seen.statistics:
            self._drift(panel).add(seen.statistics, probability)

    async def audited(
        self, panel: Panel, predictions: Sequence[ImagePrediction], options: Options
    ) -> None:
        """Write predictions down before they are given.

        Raises:
            ProblemError: 503, as they cannot be written.
        """
        for one in predictions:
            await self._write(_entry(panel, one, options))

    async def audited_explanation(self, panel: Panel, sha256: str, options: Options) -> None:
        """Write an explanation down before it is given.

        Raises:
            ProblemError: 503, as it cannot be written.
        """
        await self._write(
            AuditEntry(
                kind="explanation",
                request_id=options.request_id,
                key=options.key,
                bundle=panel.digest,
                image=sha256,
                probabilities={},
                decision=None,
                operating_point=None,
            )
        )

    def compare(
        self,
        live: Live[Panel],
        answered: Panel,
        files: Sequence[bytes],
        verdicts: Sequence[Verdict],
        ask: SecondOpinion,
    ) -> None:
        """Let the shadow, and the bundle that serves where the canary answered, say its own.

        Args:
            ask: another bundle about a file, at an operating point's name or its own first; it is
                called in the background.
        """
        others = {"shadow": live.shadow}
        if answered is live.canary:
            others["canary"] = live.serving
        for role, other in others.items():
            if other is None:
                continue
            for file, verdict in zip(files, verdicts, strict=True):
                if len(file) <= COMPARED:
                    said = verdict.decision, watched_probability(answered, verdict)
                    self.comparison.offer(role, said, partial(_say, ask, other, file))

    def failed(self, live: Live[Panel], answering: Panel, error: Exception) -> None:
        """Count what a canary owed and could not give; what a caller did wrong is not its fault."""
        its_own = not isinstance(error, ProblemError) or error.status >= 500
        if answering is live.canary and its_own:
            self.comparison.failed("canary")

    async def follow(
        self, versions: Versions[Panel], desired: Desired, *, waiting: Callable[[], int]
    ) -> None:
        """Load what is asked for as soon as that changes, and hand the counts to Ray; for ever."""
        while True:
            try:
                await asyncio.to_thread(self.look, versions, desired)
                self._tell_state(versions.live.serving, versions.states(), waiting())
                await asyncio.to_thread(self.metrics.flush)
            except Exception:  # nobody waits for this task: what it dies of has to be said here
                logger.exception("the rollout cannot be followed; it is tried again")
            await asyncio.sleep(FOLLOW_S)

    def look(self, versions: Versions[Panel], desired: Desired) -> None:
        """Apply the wanted rollout once it changes; one that is refused is not tried again."""
        with versions.changing:  # an admin's call swaps here first, and then tells what is wanted
            wanted = desired.wanted()
            if not versions.untried(wanted):
                return
            try:
                versions.apply(wanted)
                self.comparison.reset()
            except ConsiliumError as error:
                logger.error("refused, the rollout before serves on: %s", error)  # noqa: TRY400

    def close(self) -> None:
        """End the threads; nothing that was counted is lost."""
        self.comparison.close()
        self._clerk.shutdown()
        self.metrics.flush()
        self.tracer.close()
        if self._audit is not None:
            self._audit.close()

    async def _write(self, entry: AuditEntry) -> None:
        if self._audit is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._clerk, self._audit.write, entry)

    def _tell_state(self, panel: Panel, states: Sequence[VersionState], waiting: int) -> None:
        drift = self._drifts.get(panel.digest)
        self.metrics.set_drift({} if drift is None else drift.values())
        self.metrics.set_state(
            degraded=panel.n_lost,
            waiting=waiting,
            versions={state.name: state.role for state in states},
        )

    def _drift(self, panel: Panel) -> Drift:
        if panel.digest not in self._drifts:
            kept = list(self._drifts.items())[-KEPT_DRIFTS:]
            self._drifts = {**dict(kept), panel.digest: Drift(panel.manifest.profile, self._window)}
        return self._drifts[panel.digest]


def _say(ask: SecondOpinion, panel: Panel, file: bytes) -> tuple[str | None, float]:
    verdict = ask(panel, file)
    return verdict.decision, watched_probability(panel, verdict)


def _entry(panel: Panel, one: ImagePrediction, options: Options) -> AuditEntry:
    return AuditEntry(
        request_id=options.request_id,
        key=options.key,
        bundle=panel.digest,
        image=one.sha256,
        probabilities=one.probabilities,
        decision=one.decision,
        operating_point=None if one.operating_point is None else one.operating_point.name,
    )
