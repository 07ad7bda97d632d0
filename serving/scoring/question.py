"""Images for the members of their bundles: decoded, prepared, judged; in a thread of the pool."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ensemble.profile import measure
from ensemble.runtime import Pixels
from serving.images import decode_image
from serving.monitor.tracing import NO_SPAN, Span, Tracer
from serving.scoring.answer import Seen
from serving.scoring.panel import Panel, Verdict

LARGE = 1 << 20  # bytes of a file that takes long to decode


@dataclass(frozen=True)
class Question:
    """What is asked about one image file.

    Attributes:
        which: the file's SHA-256, and its place in the request from 1, for errors.
        point: name of the operating point that decides; None where the bundle has none.
        every_member: ask all of them, also where the first of a cascade are enough.
        may_stop: whether the first may be enough; then each image goes its own way.
    """

    panel: Panel
    file: bytes
    which: tuple[str, int]
    point: str | None
    every_member: bool = False
    may_stop: bool = False
    trace: Span = NO_SPAN

    @property
    def key(self) -> Hashable:
        """Equal for questions that have one answer."""
        return self.panel.digest, self.which, self.point, self.every_member

    @property
    def alone(self) -> bool:
        """Whether the members see it by itself, or it would hold up others."""
        return self.may_stop or len(self.file) > LARGE


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


def answer_all(
    questions: Sequence[Question], tracer: Tracer, *, max_pixels: int
) -> list[Scored | Exception]:
    """Decode some images and ask the members; of each what is told, or what it raises."""
    outcomes = [_prepared(question, tracer, max_pixels) for question in questions]
    ready = [one for one in outcomes if isinstance(one, Prepared)]
    spans = [tracer.span("members", parent=one.question.trace).__enter__() for one in ready]
    verdicts = judge_all(ready)
    for span, verdict in zip(spans, verdicts, strict=True):
        error = verdict if isinstance(verdict, Exception) else None
        span.__exit__(type(error) if error else None, error, None)
    told = iter(verdicts)
    return [_scored(one, next(told)) if isinstance(one, Prepared) else one for one in outcomes]


def judge_all(batch: Sequence[Prepared]) -> list[Verdict | Exception]:
    """Verdicts of several requests' images: those that ask alike go to the members together."""
    groups: dict[tuple[int, str | None, bool], list[int]] = {}
    for index, prepared in enumerate(batch):
        question = prepared.question
        key = id(question.panel), question.point, question.every_member
        groups.setdefault(key, []).append(index)
    found: dict[int, Verdict | Exception] = {}
    for (_, point, every), indices in groups.items():
        panel = batch[indices[0]].question.panel
        pixels = [batch[i].pixels for i in indices]
        try:
            verdicts = panel.judge(pixels, point, every_member=every)
            found |= dict(zip(indices, verdicts, strict=True))
        except Exception as error:  # one image's fault, or of all who ask alike
            alone = len(indices) == 1
            found |= {i: error if alone else judge_all([batch[i]])[0] for i in indices}
    return [found[i] for i in range(len(batch))]


def _prepared(question: Question, tracer: Tracer, max_pixels: int) -> Prepared | Exception:
    try:
        return prepare(question, tracer, max_pixels=max_pixels)
    except Exception as error:  # of this image alone
        return error


def _scored(one: Prepared, verdict: Verdict | Exception) -> Scored | Exception:
    return verdict if isinstance(verdict, Exception) else Scored(verdict, one.seen)
