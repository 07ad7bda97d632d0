"""One image for the members of one bundle: decoded, prepared, judged; in a thread of the pool."""

from collections.abc import Hashable
from dataclasses import dataclass

from ensemble.profile import measure
from ensemble.runtime import Pixels
from serving.images import decode_image
from serving.monitor.tracing import NO_SPAN, Span, Tracer
from serving.scoring.answer import Seen
from serving.scoring.panel import Panel, Verdict


@dataclass(frozen=True)
class Question:
    """What is asked about one image file.

    Attributes:
        which: the file's SHA-256, and its place in the request from 1, for errors.
        point: name of the operating point that decides; None where the bundle has none.
        every_member: ask all of them, also where the first of a cascade are enough.
    """

    panel: Panel
    file: bytes
    which: tuple[str, int]
    point: str | None
    every_member: bool = False
    trace: Span = NO_SPAN

    @property
    def key(self) -> Hashable:
        """Equal for questions that have one answer."""
        return self.panel.digest, self.which, self.point, self.every_member


@dataclass(frozen=True)
class Prepared:
    """A question whose image is ready for the members."""

    question: Question
    pixels: list[Pixels]
    seen: Seen


@dataclass(frozen=True)
class Scored:
    """One image, scored: what every request for it in flight shares."""

    verdict: Verdict
    seen: Seen


def prepare(question: Question, tracer: Tracer, *, max_pixels: int) -> Prepared:
    """Decode the image and bring it to the sizes that the members see.

    Raises:
        ProblemError: 413 or 422, the image is too large or damaged.
    """
    panel, (sha256, index) = question.panel, question.which
    with tracer.span("decode", parent=question.trace, bytes=len(question.file)):
        image = decode_image(question.file, index, max_pixels=max_pixels)
        pixels = panel.prepare(image)
    watched = panel.profiled
    statistics = {} if watched is None else measure(pixels[watched])
    return Prepared(question, pixels, Seen(sha256, image.size, statistics))


def judge(prepared: Prepared, tracer: Tracer) -> Scored:
    """Ask the members.

    Raises:
        ProblemError: as of `Panel.judge`.
    """
    question = prepared.question
    with tracer.span("members", parent=question.trace):
        [verdict] = question.panel.judge(
            [prepared.pixels], question.point, every_member=question.every_member
        )
    return Scored(verdict, prepared.seen)
