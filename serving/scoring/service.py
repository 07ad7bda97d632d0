"""One replica's work: files in, predictions out. All members live in one process."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from typing import Any

from ensemble.manifest import Manifest
from search.errors import ConsiliumError
from serving.config import Rollout, ServingConfig, Version
from serving.problems import ProblemError
from serving.schemas import (
    ExplainAnswer,
    Explanation,
    ImagePrediction,
    ImageWarning,
    ModelAnswer,
    PredictAnswer,
    describe,
    identity,
)
from serving.scoring.answer import check_prevalence, tell
from serving.scoring.board import Board, Desired, MemoryBoard
from serving.scoring.flight import Flight
from serving.scoring.gather import Gather
from serving.scoring.options import Options
from serving.scoring.panel import Panel, Verdict
from serving.scoring.quality import warnings_of
from serving.scoring.question import Prepared, Question, Scored, answer_all, prepare
from serving.scoring.versions import Versions
from serving.scoring.watch import Watch

# As serving.explain.explainer.Explainer.explain: file, folder, digest, class, members.
Explain = Callable[[bytes, str, str, str | None, list[str]], Awaitable[dict[str, Any]]]
# Verdicts by a GPU: it takes requests together.
Together = Callable[[Prepared], Awaitable[Verdict]]
HASH_ON_LOOP = 1 << 20  # bytes; hashing more would hold up other requests


class Service:
    """One replica: bundles ready to be asked, and a pool of threads to ask them in.

    Parallel between images, not inside one: a pool as wide as the replica's CPUs decodes images and
    asks the members, each thread its share of those that wait, and sessions have one thread each.
    The event loop only moves bytes. What waits is bounded: an image too many is answered 429 at
    once.
    """

    def __init__(
        self,
        config: ServingConfig,
        *,
        board: Board | None = None,
        explain: Explain | None = None,
        together: Together | None = None,
        replica: str = "local",
    ) -> None:
        """Nothing is loaded until `start`."""
        self.config = config
        self.versions = Versions(self._load)
        self.desired = Desired(board or MemoryBoard(), "consilium")
        self.watch = Watch(config, replica=replica)
        self.comparison = self.watch.comparison
        self.explains = explain is not None
        self._explain = explain
        self._together = together
        self._pool = ThreadPoolExecutor(config.cpus, thread_name_prefix="members")
        self._gather = Gather(self._pool, config.cpus, self._ask_all, alone=attrgetter("alone"))
        self._flight: Flight[Scored] = Flight(config.max_waiting_images)
        self._follower: asyncio.Task[None] | None = None
        self._open = False

    def start(self, rollout: Rollout) -> None:
        """Load what the rollout names, or the admin's that stands for it; then it is ready.

        A replica that starts while what is wanted cannot be loaded serves by what the others still
        serve by: the rollout before.

        Raises:
            BundleError: a bundle that has to answer cannot, and there is no rollout before.
        """
        self.desired.configured(rollout)
        wanted, before = self.desired.wanted(), self.desired.previous()
        try:
            self.versions.apply(wanted)
        except ConsiliumError as error:
            if before is None:
                raise
            self.versions.apply(before)
            self.versions.refuse(wanted.serving, str(error))
        self._open = True

    async def reconfigure(self, rollout: Rollout) -> None:
        """Follow another rollout. It is loaded beside the requests, and kept out if it is bad."""
        await asyncio.to_thread(self.desired.configured, rollout)
        self.begin()

    def begin(self) -> None:
        """Start what goes on beside the requests; on a running event loop, once."""
        if self._follower is None:
            self._follower = asyncio.get_running_loop().create_task(
                self.watch.follow(self.versions, self.desired, waiting=lambda: len(self._flight))
            )

    @property
    def open(self) -> bool:
        """Whether it was started and not closed."""
        return self._open

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        return self._open and self.panel.answers

    @property
    def panel(self) -> Panel:
        """Of the bundle that serves."""
        return self.versions.live.serving

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that serves."""
        return self.panel.manifest

    async def predict(self, files: Sequence[bytes], options: Options) -> PredictAnswer:
        """A prediction for each file, by one and the same bundle.

        Raises:
            ProblemError: a file is damaged or too large, a parameter unknown, or the replica busy.
        """
        hashes = [await _hash(file) for file in files]
        live = self.versions.live
        version, panel = live.pick(bytes.fromhex(hashes[0]))
        point = panel.operating_point(options.operating_point)
        check_prevalence(panel, options.prevalence)
        name = None if point is None else point.name
        try:
            scored = await self._score(panel, files, hashes, point=name, options=options)
        except Exception as error:
            self.watch.failed(live, panel, error)
            raise
        predictions = [
            tell(panel, one.verdict, one.seen, options, warnings=self._warnings(panel, one))
            for one in scored
        ]
        if options.explain:
            predictions = await self._explained(panel, files, predictions)
        verdicts = [one.verdict for one in scored]
        for one in scored:
            self.watch.note(panel, one.verdict, one.seen, version=version)
        await self.watch.audited(panel, predictions, options)
        ask = partial(self._second_opinion, options.operating_point)
        self.watch.compare(live, panel, files, verdicts, ask)
        return PredictAnswer(
            predictions=predictions,
            bundle=identity(panel.manifest),
            degraded=next((v.degraded for v in verdicts if v.degraded), None),
            request_id=options.request_id,
        )

    async def explain(self, file: bytes, class_name: str | None, options: Options) -> ExplainAnswer:
        """Where one image speaks for a class; for the positive one where None is named.

        Raises:
            ProblemError: explanations are off, the class is unknown, or the image is damaged.
        """
        sha256 = await _hash(file)
        _, panel = self.versions.live.pick(bytes.fromhex(sha256))
        found = await self._map(panel, file, class_name)
        await self.watch.audited_explanation(panel, sha256, options)
        return ExplainAnswer(
            explanation=found,
            bundle=identity(panel.manifest),
            request_id=options.request_id,
        )

    def describe(self) -> ModelAnswer:
        """What is served."""
        return describe(
            self.manifest,
            versions=self.versions.states(),
            degraded=self.panel.degraded,
            explain=self.explains,
            examples=[f"/examples/{name}" for name in self.examples()],
        )

    def examples(self) -> list[str]:
        """Names of the serving bundle's golden images; none where they are not shown."""
        if not self.config.examples:
            return []
        names = (name.removeprefix("golden/") for name in self.manifest.files)
        return sorted(name for name in names if name.endswith(".png") and "/" not in name)

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        self._open = False
        if self._follower is not None:
            self._follower.cancel()
        self._gather.close()
        self._pool.shutdown(cancel_futures=True)
        self.watch.close()

    def _load(self, version: Version) -> Panel:
        return Panel(
            version,
            engine=self.config.engine,
            device="cuda" if self.config.gpus else "cpu",
            cascade=self.config.cascade,
        )

    async def _score(
        self,
        panel: Panel,
        files: Sequence[bytes],
        hashes: Sequence[str],
        *,
        point: str | None,
        options: Options,
    ) -> list[Scored]:
        every = options.members or not options.cascade
        early = panel.stops_early(point, every_member=every)
        questions = [
            Question(panel, file, (sha256, index), point, every, early, options.trace)
            for index, (file, sha256) in enumerate(zip(files, hashes, strict=True), 1)
        ]
        jobs = [(question.key, partial(self._scored, question)) for question in questions]
        try:
            async with asyncio.timeout(self.config.request_timeout_s):
                return await self._flight.all(jobs)
        except TimeoutError as error:
            raise ProblemError(
                503,
                "too_slow",
                f"not scored within {self.config.request_timeout_s:g} s; try again",
                headers={"Retry-After": "1"},
            ) from error

    async def _scored(self, question: Question) -> Scored:
        if self._together is None:
            return await self._gather(question)
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._pool, self._prepare, question)
        return Scored(await self._together(prepared), prepared.seen)

    def _ask_all(self, questions: Sequence[Question]) -> list[Scored | Exception]:
        return answer_all(questions, self.watch.tracer, max_pixels=self.config.max_pixels)

    def _prepare(self, question: Question) -> Prepared:
        return prepare(question, self.watch.tracer, max_pixels=self.config.max_pixels)

    def _second_opinion(self, point: str | None, panel: Panel, file: bytes) -> Verdict:
        """What another bundle says, in the background; at its own first point where None."""
        found = None if point is None else panel.operating_point(point)
        first = panel.operating_point(None) if found is None else found
        name = None if first is None else first.name
        [told] = self._ask_all([Question(panel, file, ("", 1), name)])
        if isinstance(told, Exception):
            raise told
        return told.verdict

    def _warnings(self, panel: Panel, one: Scored) -> list[ImageWarning]:
        return warnings_of(
            one.seen.size,
            panel.largest_side,
            one.seen.statistics,
            panel.manifest.profile,
            one.verdict.novel,
        )

    async def _explained(
        self, panel: Panel, files: Sequence[bytes], predictions: Sequence[ImagePrediction]
    ) -> list[ImagePrediction]:
        maps = [await self._map(panel, file, None) for file in files]
        return [
            prediction.model_copy(update={"explanation": found})
            for prediction, found in zip(predictions, maps, strict=True)
        ]

    async def _map(self, panel: Panel, file: bytes, class_name: str | None) -> Explanation:
        if self._explain is None:
            raise ProblemError(422, "no_explanations", "this service gives no explanations")
        left = [panel.manifest.members[i].name for i in panel.standing.members]
        found = await self._explain(file, str(panel.bundle.folder), panel.digest, class_name, left)
        return Explanation.model_validate(found)


async def _hash(file: bytes) -> str:
    if len(file) <= HASH_ON_LOOP:
        return hashlib.sha256(file).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(file).hexdigest())
