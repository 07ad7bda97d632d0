"""What a clinician wants to know first, in plain sentences."""

from math import ceil, floor

from ensemble.evaluation.results import Estimate, PointResult
from ensemble.pages.figures import rest
from ensemble.pages.story import Story
from search.report.canvas import is_number, percent, plural

NOT_FOR = (
    "It is not for diagnosis, triage or treatment, nor for any other decision about a person; not "
    "for images of another kind, device or population before a test on them; and not for finding "
    "anything but the classes named: every image gets probabilities of these, whatever it shows."
)


def summary_of(story: Story) -> list[tuple[str, str, str]]:
    """What it does, whether that is promised, what it was tested on, what it is not for.

    Returns:
        Heading, text and tone ("", good or warn), in the order of reading.
    """
    parts = [("What it does", does(story), "")]
    if story.point is not None:
        heading = "What is promised"
        parts.append((heading, promise(story.point), "good" if story.point.certified else "warn"))
    parts.append(("What it was tested on", tested(story), ""))
    weak = weak_groups(story)
    if weak:
        parts.append(("Where it does worse", weak, "warn"))
    failed = [verdict.gate for verdict in story.verdicts if not verdict.holds]
    if failed:
        text = f"Of the rules set beforehand, {len(failed)} did not hold: {', '.join(failed)}."
        parts.append(("What did not hold", text, "warn"))
    return [*parts, ("What it is not for", NOT_FOR, "")]


def does(story: Story) -> str:
    """How often decisions at the default operating point are right, of a hundred."""
    e, point = story.evaluation, story.point
    if e.positive_index is None or point is None:
        accuracy = story.metric("accuracy")
        names = ", ".join(e.classes)
        start = f"It gives an image probabilities of {len(e.classes)} classes: {names}."
        right = f" Of 100 images its most probable class is right for about {of_100(accuracy)}."
        return start + (right if is_number(accuracy.value) else "")
    positive = f"{e.positive} images"
    others = (
        f"{rest(e.classes, e.positive_index)} images" if len(e.classes) == 2 else "other images"
    )
    act = "call positive" if point.refer_from is None else "call positive or refer to a person"
    clear = "clear" if point.refer_from is None else "clear or refer"
    sentences = [
        f"At the operating point {point.name}, of 100 {positive} it would {act} about "
        f"{of_100(point.sensitivity)}, and miss the others.",
        f"Of 100 {others} it would {clear} about {of_100(point.specificity)}, and call the others "
        "positive by mistake.",
    ]
    if point.refer_from is not None:
        sentences.append(f"It refers {percent(point.referred)} of all images to a person.")
    share = percent(e.prevalence.get(e.positive or ""))
    sentences.append(
        f"Where {share} of images are {e.positive}, as in this test, a positive answer is right "
        f"about {of_100(point.ppv)} times in 100, and a negative one {of_100(point.npv)} times; "
        "where they are rarer, a positive answer is right less often."
    )
    return " ".join(sentences)


def promise(point: PointResult) -> str:
    """Whether the operating point is certified, and why."""
    reason = point.reason.rstrip(".")
    if point.certified:
        return f"“{point.target}” is certified: {reason}."
    return (
        f"“{point.target}” is not certified: {reason}. The numbers above are estimates with "
        "the intervals given, not a promise."
    )


def tested(story: Story) -> str:
    """On how many images, of what kind, and who saw them before."""
    e = story.evaluation
    images = plural(e.n_images, "image")
    groups = "" if e.n_groups == e.n_images else f" of {plural(e.n_groups, 'patient')} or lesions"
    what = f"On {images}{groups}"
    if e.positive is not None and story.labels.size:
        what += f", {int((story.labels == e.positive_index).sum()):,} of them {e.positive}"
    if story.is_sealed:
        what += (
            ". They were sealed: no part of training, choosing, calibrating or setting thresholds. "
            "They come from the same sources as the training images; on others expect less"
        )
    if e.skipped:
        what += f". {plural(len(e.skipped), 'image')} could not be read and count for nothing"
    return f"{what}."


def weak_groups(story: Story) -> str:
    """Subgroups whose whole interval lies below the whole's value."""
    metric = group_metric(story)
    whole = whole_of(story, metric).value if metric else None
    if metric is None or whole is None:
        return ""
    found = [
        f"{g.column} {g.value} ({percent(g.metrics[metric].value)} of {g.n:,} images)"
        for g in story.evaluation.subgroups
        if metric in g.metrics and is_number(g.metrics[metric].high)
        if (g.metrics[metric].high or 0.0) < whole
    ]
    if not found:
        return ""
    name = "AUROC" if metric == "auroc" else metric.replace("_", " ")
    return (
        f"Its {name} is clearly below that of all images ({percent(whole)}) in: {'; '.join(found)}."
    )


def group_metric(story: Story) -> str | None:
    """The metric that subgroups are judged by: the sensitivity, or else the AUROC."""
    groups = story.evaluation.subgroups
    for name in ("sensitivity", "auroc", "accuracy"):
        if any(g.metrics[name].value is not None for g in groups if name in g.metrics):
            return name
    return None


def whole_of(story: Story, metric: str) -> Estimate:
    """The same metric of all images; sensitivities are those at the default operating point."""
    if story.point is not None and metric in ("sensitivity", "specificity"):
        return story.point.sensitivity if metric == "sensitivity" else story.point.specificity
    return story.metric(metric)


def of_100(estimate: Estimate) -> str:
    """96 (90 to 99); a range of whole cases, wide rather than narrow."""
    if estimate.value is None:
        return "an unknown number"
    middle = f"{100 * estimate.value:.0f}"
    if estimate.low is None or estimate.high is None:
        return middle
    low, high = floor(100 * estimate.low + 1e-9), ceil(100 * estimate.high - 1e-9)
    return f"{middle} ({low} to {high})"
