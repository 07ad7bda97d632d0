"""A bundle ready to be asked: loaded, checked, warm; with fewer members where some are lost."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.bundle import load_bundle
from ensemble.calibration.calibrators import Calibrator
from ensemble.decision.points import Decision, OperatingPoint
from ensemble.golden import check_golden
from ensemble.runtime import Engine, Pixels, Runtime, survivors_of
from ensemble.survivors import pool_subset
from search.errors import BundleError
from serving.config import Version
from serving.problems import ProblemError
from serving.scoring.walk import has_exits, walk

Floats = NDArray[np.float64]
logger = logging.getLogger("consilium.panel")


@dataclass(frozen=True)
class Verdict:
    """What the members say of one image.

    Attributes:
        probs: calibrated, (n_classes,), summing to 1.
        member_probs: of those asked, by name, (n_classes,) each.
        decision: at the operating point; None without one.
        point: that decided; the survivors have others than the whole ensemble.
        novel: unlike the training images; None where nothing was measured.
        degraded: which members had failed.
    """

    probs: Floats
    member_probs: dict[str, NDArray[np.float32]]
    decision: Decision | None
    point: OperatingPoint | None
    novel: bool | None
    degraded: str | None = None


@dataclass(frozen=True)
class Standing:
    """Those who answer now: all members, or the survivors with a decision of their own."""

    members: tuple[int, ...]
    calibrator: Calibrator
    operating_points: list[OperatingPoint]
    degraded: str | None


class MemberError(Exception):
    """A member that cannot score an image."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Panel:
    """One bundle on one replica. Safe to call from several threads.

    A member that cannot be loaded, or fails at work, is left out: the survivors go on with the
    calibrator and the operating points that the bundle holds for them, or nobody answers.
    """

    def __init__(
        self,
        version: Version,
        *,
        engine: Engine = "onnx",
        device: str = "cpu",
        cascade: bool = True,
    ) -> None:
        """Load and verify a bundle, score its golden images, and warm up.

        Raises:
            BundleError: it cannot be loaded, is another one than the version says, or its golden
                images come out otherwise than at build.
        """
        self.bundle = load_bundle(version.path)
        self.manifest = self.bundle.manifest
        self.digest = self.manifest.digest
        if version.digest not in (None, self.digest):
            raise BundleError(
                f"{version.path}: has the digest {self.digest[:12]}, not the one asked for, "
                f"{str(version.digest)[:12]}; name the right folder, or take the digest out"
            )
        self._runtime = Runtime(self.bundle, engine=engine, device=device, tolerant=True)
        self._weights = np.array([member.weight for member in self.manifest.members])
        self._cascade = cascade
        self._lock = threading.Lock()
        self._lost: dict[str, str] = {}
        self._standing: Standing | None = self._stand()
        self._blank = self.prepare(Image.new("RGB", (64, 64)))
        for name, reason in self._runtime.lost.items():
            self._lose(name, reason)
        if self._standing is None:
            raise BundleError(
                f"{'; '.join(self._lost.values())}; the bundle has no thresholds without them"
            )
        if not self._lost:
            check_golden(self._runtime, engine)
        self.judge([self._blank], None)

    @property
    def standing(self) -> Standing:
        """Who answers.

        Raises:
            ProblemError: 503, as too few members are left.
        """
        if self._standing is None:
            raise ProblemError(
                503,
                "members_lost",
                f"{', '.join(self._lost)} failed, and the bundle has no thresholds for the members "
                "that are left; an operator has to look at it",
            )
        return self._standing

    @property
    def answers(self) -> bool:
        """Whether enough members are left."""
        return self._standing is not None

    @property
    def degraded(self) -> str | None:
        """Which members failed."""
        return None if self._standing is None else self._standing.degraded

    @property
    def n_lost(self) -> int:
        """Members that failed."""
        return len(self._lost)

    @property
    def profiled(self) -> int | None:
        """Index of the member whose pixels the bundle's profile is about; None without one."""
        profile = self.manifest.profile
        names = [member.name for member in self.manifest.members]
        return None if profile is None else names.index(profile.member)

    @property
    def largest_side(self) -> int:
        """Pixels of the largest square that a member sees."""
        return max(member.preprocessing.size for member in self.manifest.members)

    def operating_point(self, name: str | None) -> OperatingPoint | None:
        """The operating point of that name, of those who answer now; the first where None.

        Raises:
            ProblemError: 422, naming those there are.
        """
        return _point_of(self.standing, name)

    def prepare(self, image: Image.Image) -> list[Pixels]:
        """Pixels for each member (see ensemble.runtime.Runtime.prepare)."""
        return self._runtime.prepare(image)

    def stops_early(self, point: str | None, *, every_member: bool = False) -> bool:
        """Whether the first members of a cascade may be enough for an image.

        Raises:
            ProblemError: as of `judge`.
        """
        standing = self.standing
        may_stop = self._cascade and not (every_member or standing.degraded)
        return may_stop and has_exits(self.bundle, _point_of(standing, point))

    def judge(
        self,
        prepared: Sequence[Sequence[Pixels]],
        point: str | None,
        *,
        every_member: bool = False,
    ) -> list[Verdict]:
        """A verdict for each prepared image.

        Args:
            point: name of the operating point that decides.
            every_member: ask all of them, also where the first of a cascade are enough.

        Raises:
            ProblemError: 503, as too few members are left; 422, for an unknown operating point,
                and for images that a member which works cannot score.
        """
        while True:
            standing = self.standing
            chosen = _point_of(standing, point)  # of those who answer this very image
            try:
                if self.stops_early(point, every_member=every_member):
                    return [self._by_cascade(one, chosen) for one in prepared]
                return self._by_all(prepared, chosen, standing)
            except MemberError as error:
                if self._works(error.name):
                    raise ProblemError(
                        422, "damaged_image", "a member cannot score this image; send another"
                    ) from error
                self._lose(error.name, error.reason)

    def _by_all(
        self, prepared: Sequence[Sequence[Pixels]], point: OperatingPoint | None, standing: Standing
    ) -> list[Verdict]:
        asked = [self._ask(i, np.stack([one[i] for one in prepared])) for i in standing.members]
        member_probs = np.stack([probs for probs, _ in asked])
        distances = next((near for _, near in asked if near is not None), None)
        pooled = pool_subset(
            member_probs, self._weights[list(standing.members)], range(len(member_probs))
        )
        probs = standing.calibrator.apply(pooled)
        names = [self.manifest.members[i].name for i in standing.members]
        return [
            Verdict(
                probs=probs[j],
                member_probs=dict(zip(names, member_probs[:, j], strict=True)),
                decision=self.bundle.decide(probs[j], point),
                point=point,
                novel=None if distances is None else self._is_novel(distances[j]),
                degraded=standing.degraded,
            )
            for j in range(len(prepared))
        ]

    def _by_cascade(self, prepared: Sequence[Pixels], point: OperatingPoint | None) -> Verdict:
        said: dict[str, NDArray[np.float32]] = {}
        index = {member.name: i for i, member in enumerate(self.manifest.members)}
        novel: bool | None = None

        def ask(name: str) -> bool | None:
            nonlocal novel
            probs, near = self._ask(index[name], prepared[index[name]][None])
            said[name] = probs[0]
            novel = novel if near is None else self._is_novel(near[0])
            return novel

        # A case like none seen gets the whole ensemble: what was certified is about other images.
        novelty = self.manifest.out_of_distribution
        strange = novelty is not None and ask(novelty.member)
        early = None if point is None or strange else walk(self.bundle, point, said, ask)
        if early is not None:
            return Verdict(early[0], said, early[1], point, novel)
        for name in [name for name in index if name not in said]:
            ask(name)
        member_probs = {name: said[name] for name in index}
        pooled = pool_subset(
            np.stack(list(member_probs.values()))[:, None], self._weights, range(len(index))
        )
        probs = self.manifest.calibrator.apply(pooled)[0]
        return Verdict(probs, member_probs, self.bundle.decide(probs, point), point, novel)

    def _ask(
        self, member: int, pixels: Pixels
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        name = self.manifest.members[member].name
        try:
            probs, near = self._runtime.ask(member, pixels)
        except Exception as error:  # onnxruntime's and torch's own share no base class
            raise MemberError(name, " ".join(str(error).split())[:200]) from error
        if not np.isfinite(probs).all():
            raise MemberError(name, "gives NaN")
        return probs, near

    def _is_novel(self, distance: np.floating) -> bool:
        novelty = self.manifest.out_of_distribution
        return novelty is not None and bool(distance > novelty.threshold)

    def _works(self, name: str) -> bool:
        """Whether a member scores a blank image: else no image of a caller's is to blame."""
        index = [member.name for member in self.manifest.members].index(name)
        try:
            self._ask(index, self._blank[index][None])
        except MemberError:
            return False
        return True

    def _lose(self, name: str, reason: str) -> None:
        with self._lock:
            if name in self._lost:
                return  # another thread met it first
            self._lost[name] = reason
            logger.error("%s: member %s is lost: %s", self.manifest.name, name, reason)
            self._standing = self._stand()

    def _stand(self) -> Standing | None:
        """Who answers, given who is lost; None where the bundle has nothing for those left."""
        members = self.manifest.members
        if not self._lost:
            points = self.manifest.operating_points
            return Standing(tuple(range(len(members))), self.manifest.calibrator, points, None)
        left = [member.name for member in members if member.name not in self._lost]
        fitted = survivors_of(self.bundle, left)
        if fitted is None:
            return None
        return Standing(
            tuple(i for i, member in enumerate(members) if member.name in left),
            fitted.calibrator,
            fitted.operating_points,
            f"{len(left)} of {len(members)} members answer, by thresholds of their own; "
            f"failed: {', '.join(self._lost)}",
        )


def _point_of(standing: Standing, name: str | None) -> OperatingPoint | None:
    points = {point.name: point for point in standing.operating_points}
    if name is None:
        return next(iter(points.values()), None)
    if name not in points:
        known = ", ".join(points) or "none"
        raise ProblemError(
            422,
            "unknown_operating_point",
            f"no operating point {name[:100]!r}; this bundle has {known}",
        )
    return points[name]
