"""Sections that say how often the bundle is right, how surely, and what that is worth."""

import numpy as np

from ensemble.evaluation.results import PointResult
from ensemble.pages import figures
from ensemble.pages.benefit import benefit_figure, coverage_figure, refer_figure
from ensemble.pages.matrices import confusion_figure, decision_figure
from ensemble.pages.reach import reach_sections
from ensemble.pages.story import Story
from ensemble.pages.tables import Cell, Section, Table, estimated, figure, label, text, told, words
from search.report.canvas import chart, number, percent, plural


def clinical_sections(story: Story) -> list[Section]:
    """All that have data, in the order of the page."""
    made = (
        _points(story),
        _ranking(story),
        _calibration(story),
        _decisions(story),
        _benefit(story),
        _refer(story),
        _coverage(story),
    )
    return [*(section for section in made if section is not None), *reach_sections(story)]


def _points(story: Story) -> Section | None:
    e = story.evaluation
    if e.positive_index is None or not e.operating_points:
        return None
    rows = [_point_row(story, point) for point in e.operating_points]
    columns = ["Point", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV", "Status"]
    names = [figures.rest(e.classes, e.positive_index), e.positive or ""]
    charts = []
    for i, p in enumerate(e.operating_points):
        counts = np.asarray(p.confusion, np.int64)
        drawn = decision_figure(counts, names, refers=p.refer_from is not None)
        right = f"{counts[1, 2]:,} of {p.n_positive:,} {e.positive} images are called positive"
        wrong = f"{counts[0, 2]:,} of {p.n_negative:,} others are, too"
        charts.append(chart(f"point-{i}", p.name, drawn, 270, caption=f"{right}; {wrong}."))
    finding = (
        f"An image counts as {e.positive} where its probability reaches the threshold; where there "
        "are two, a person looks at those between. Numbers are of these images, with 95% intervals."
    )
    table = Table("Operating points", columns, rows)
    return Section("points", "Operating points", finding, charts, tables=[table])


def _point_row(story: Story, p: PointResult) -> list[Cell]:
    chosen = {c.name: c for c in story.manifest.operating_points} if story.manifest else {}
    c, status = chosen.get(p.name), "certified" if p.certified else "not certified"
    before = ""
    if c is not None:
        low, high = c.sensitivity_interval
        before = (
            f"when chosen: sensitivity {number(c.sensitivity)} ({number(low)} to {number(high)}, "
            f"{percent(c.confidence)}) of {c.n_positive:,}, specificity "
            f"{number(c.specificity)} of {c.n_negative:,}"
        )
    threshold = figure(p.threshold)
    if p.refer_from is not None:
        threshold = Cell(
            f"{number(p.refer_from)} to {number(p.threshold)}",
            f"refers {percent(p.referred)}",
            is_number=True,
        )
    return [
        text(p.name, p.target),
        threshold,
        *(estimated(rate) for rate in (p.sensitivity, p.specificity, p.ppv, p.npv)),
        text(f"{status}: {p.reason}", before, "good" if p.certified else "warn"),
    ]


def _ranking(story: Story) -> Section | None:
    e, positive = story.evaluation, story.evaluation.positive_index
    lines = figures.drawn(story.labels, len(e.classes), positive)
    if not lines:
        return None
    data, points = (story.probs, story.labels, e.classes), e.operating_points
    height = 360 + 20 * (len(lines) + len(points))  # the legend below
    roc = figures.roc_figure(*data, positive=positive, points=points)
    recall = figures.precision_recall_figure(*data, positive=positive)
    some = "" if len(lines) == len(e.classes) else f", {len(lines)} drawn"
    over = "" if positive is not None else f", mean over {len(e.classes)} classes{some}"
    marks = "; the marks are the operating points" if points else ""
    if any(p.refer_from is not None for p in points):
        marks += ", one that refers lying above the curve, for a person decides what it refers"
    area, precision = told(story.metric("auroc")), told(story.metric("auprc"))
    charts = [
        chart("roc", "ROC", roc, height, caption=f"AUROC {area}{over}{marks}."),
        chart(
            "recall",
            "Precision and recall",
            recall,
            height,
            caption=f"Average precision {precision}{over}; dotted is the prevalence, which "
            "guessing reaches.",
        ),
    ]
    finding = (
        f"AUROC {area}: the chance that an image of the class gets a higher probability than "
        "one that is not; 0.5 is guessing."
    )
    return Section("ranking", "Telling apart", finding, charts)


def _calibration(story: Story) -> Section:
    e, positive = story.evaluation, story.evaluation.positive_index
    data, points = (story.probs, story.labels), e.operating_points
    reliability = figures.reliability_figure(*data, positive=positive)
    scores = figures.score_figure(*data, e.classes, positive=positive, points=points)
    what = "the most probable class" if positive is None else e.classes[positive]
    errors = [f"{label(m)} {told(e.metrics[m])}" for m in ("ece", "smooth_ece") if m in e.metrics]
    slopes = [m for m in ("calibration_slope", "calibration_intercept") if m in e.metrics]
    more = "".join(f"; {words(m)} {told(e.metrics[m])}" for m in slopes)
    finding = (
        f"Of images given 0.3, about 30 in 100 should be it. {', '.join(errors)}, "
        f"of the probability of {what}{more}."
    )
    dotted = (
        "On the dotted line a probability comes true as often as it says; bars are 95% "
        "Clopper-Pearson intervals, counts stand below."
    )
    thresholds = "; lines are the thresholds" if points else ""
    spread = f"How probabilities spread, each kind of image by itself{thresholds}."
    charts = [
        chart("reliability", "Reliability", reliability, 420, caption=dotted),
        chart("scores", "Probabilities", scores, 400 + 20 * len(points), caption=spread),
    ]
    return Section("calibration", "Whether probabilities come true", finding, charts)


def _decisions(story: Story) -> Section:
    e = story.evaluation
    counts = np.asarray(e.confusion, np.int64)
    right, n = int(counts.trace()), max(int(counts.sum()), 1)
    side = min(180 + 44 * len(e.classes), 1000)
    drawn = confusion_figure(counts, e.classes)
    finding = (
        f"The most probable class is the true one for {right:,} of {n:,} images "
        f"({percent(right / n)}); each row's shares add up to 100%."
    )
    least = min(side, 640) if len(e.classes) > 3 else 0
    charts = [chart("confusion", "Classes", drawn, max(side, 340), least, caption=finding)]
    return Section("confusion", "Most probable class", finding, charts)


def _benefit(story: Story) -> Section | None:
    curve = story.evaluation.decision_curve
    if curve is None or not curve.thresholds:
        return None
    values = [-np.inf if e.value is None else e.value for e in curve.bundle]
    better = [
        t
        for t, value, everyone in zip(curve.thresholds, values, curve.treat_all, strict=True)
        if value > max(everyone, 0)
    ]
    where = (
        f"It does better than both at {len(better)} of {len(values)} thresholds, from "
        f"{percent(min(better))} to {percent(max(better))}"
        if better
        else "Nowhere does it do better than both"
    )
    finding = (
        "Net benefit: true positives less false ones, weighed by the risk from which one would "
        f"act, against treating all and treating none. {where}."
    )
    caption = "The band is the 95% interval; a threshold of 10% takes nine false alarms for a hit."
    charts = [chart("benefit", "Decision curve", benefit_figure(curve), 400, caption=caption)]
    return Section("benefit", "Decision curve", finding, charts)


def _refer(story: Story) -> Section | None:
    points = {p.name: p for p in story.evaluation.operating_points}
    charts = []
    for i, (name, front) in enumerate(story.refer_fronts.items()):
        p = points.get(name)
        used = None if p is None or p.refer_from is None else (p.refer_from, p.threshold)
        caption = f"{plural(len(front), 'pair')} of thresholds; the rings mark the one in use."
        if front:
            drawn = refer_figure(front, used)
            charts.append(chart(f"refer-{i}", name, drawn, 400, caption=caption))
    if not charts:
        return None
    finding = (
        "What sending the unclear images to a person buys: pairs of thresholds that no other pair "
        "beats in sensitivity, specificity and share referred at once, on held-back images."
    )
    return Section("refer", "Refer band", finding, charts)


def _coverage(story: Story) -> Section | None:
    curve = story.evaluation.risk_coverage
    if curve is None or not curve.coverage:
        return None
    areas = [
        f"{label(m)} {told(story.evaluation.metrics[m])}"
        for m in ("augrc", "aurc")
        if m in story.evaluation.metrics
    ]
    finding = f"How often it is wrong where it answers only when sure. {', '.join(areas)}".strip()
    caption = (
        "Images are kept by confidence, the most confident first; dotted: all. A curve that falls "
        "to the left knows when it does not know."
    )
    charts = [chart("coverage", "Risk and coverage", coverage_figure(curve), 360, caption=caption)]
    return Section("coverage", "Answering only when sure", f"{finding.rstrip('.')}.", charts)
