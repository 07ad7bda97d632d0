"""The page about sites left out one at a time; it holds no script and opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.evaluation.results import Estimate, Estimates
from ensemble.pages.forest import Forest, Row, forest, written
from ensemble.pages.tables import label, told, words
from ensemble.sites.results import LESS, Held, SiteResult, SitesResult, promised
from search.location import Place
from search.pages import page_environment, write_page
from search.report.canvas import number, percent, plural

METRICS = ("auroc", "nll", "ece", "sensitivity", "specificity")
TONES: dict[Held | None, str] = {"yes": "good", "no": "warn", "too few": "", None: ""}
SIDES = {"away": "left out", "home": "at home"}
FOLDER = Path(__file__).parent
HOME = (
    "“At home” are images of the other sites that trained nothing: each fifth of them is judged by "
    "a calibrator and a threshold of the other four."
)


@dataclass(frozen=True)
class Line:
    """A row of the table of metrics; `site` where a block of rows begins, of so many rows."""

    site: str
    what: str
    cells: Sequence[str]
    rows: int = 0
    tones: Sequence[str] = ()


def write_sites_page(path: Place, found: SitesResult) -> None:
    """Write the page as one file that loads nothing."""
    shown = [m for m in METRICS if any(m in s.away.metrics for s in found.sites)]
    template = page_environment(FOLDER, FOLDER.parents[1] / "search" / "report").get_template(
        "sites.html.j2"
    )
    write_page(
        path,
        template,
        title=f"{found.name}: each {found.column} left out once",
        about=_about(found),
        summary=plain_words(found),
        forests=forests(found),
        home=HOME,
        columns=["Images", *([found.positive] if found.positive else []), *_headings(shown)],
        lines=lines(found, shown),
        points=_points(found),
        kept=found.not_left_out,
        limits=limits(found),
    )


def plain_words(found: SitesResult) -> list[tuple[str, str, str]]:
    """Heading, text and tone of each paragraph, in the order of reading."""
    parts = []
    if threshold := threshold_words(found):
        parts.append(("Would its threshold hold?", threshold, "warn" if found.held["no"] else ""))
    parts.append(("Would it still tell apart?", _ranking_words(found), ""))
    if worse := _worse(found):
        parts.append(("Where it does worse than at home", worse, "warn"))
    return parts


def threshold_words(found: SitesResult) -> str:
    """In how many sites the others' threshold kept what it was chosen for."""
    asked = [(s, promised(s.point)) for s in found.sites if s.point is not None]
    if not asked or asked[0][1] is None:
        return ""
    metric, rate = asked[0][1]
    certified = sum(s.point.certified for s, _ in asked if s.point is not None)
    n, held = len(found.sites), found.held
    which = "certified on" if certified == n else "chosen on"
    text = (
        f"The threshold {which} the others kept its {metric} of {rate:g} in {held['yes']} of "
        f"{plural(n, 'site')}."
    )
    if held["no"]:
        text += f" It fell short in {held['no']}: {_named(found, 'no')}."
    if held["too few"]:
        text += (
            f" In {held['too few']} there are too few cases to tell: {_named(found, 'too few')}."
        )
    if certified < n:
        some = f"in only {certified} of them" if certified else "in none of them"
        text += f" The others had the cases to certify it {some}."
    return text


def limits(found: SitesResult) -> list[str]:
    """What the numbers do not say."""
    told_of = [
        f"A site is a value of the column “{found.column}”. What that stands for, a hospital, a "
        "camera or a part of the body, is all that this page is about.",
        f"The params are trial {found.trial}'s, which the search chose with images of every site. "
        "So were its epochs and learning rates, which flatters the left-out site a little. "
        "Classifier, calibrator and threshold are new each time.",
        "The sealed test was not opened: all images are those that the search may see.",
        "Intervals are about these sites. Another one may lie outside all of them.",
        "Log loss and calibration error go with the share of the positive class, too: where it is "
        "another than at home, they differ though nothing else does. Of few images a calibration "
        "error is larger by chance alone.",
    ]
    if found.n_unknown:
        told_of.append(
            f"{plural(found.n_unknown, 'image')} of no known {found.column} counted among the "
            "others each time. Some may come from the site that was left out, which then looks "
            "better than it is."
        )
    return told_of


def forests(found: SitesResult) -> list[Forest]:
    """AUROC, and what the threshold was chosen for, of each site: left out and at home."""
    drawn = [_forest(found, "auroc", None)]
    asked = next((promised(s.point) for s in found.sites if s.point is not None), None)
    if asked is not None:
        drawn.append(_forest(found, *asked))
    return [each for each in drawn if each is not None]


def lines(found: SitesResult, shown: Sequence[str]) -> list[Line]:
    """Three rows a site (left out, at home, their difference), then the mean and the worst."""
    rows = []
    for s in found.sites:
        rows += [
            _side_line(found, s, "away", shown),
            _side_line(found, s, "home", shown),
            _difference_line(found, s, shown),
        ]
    blank = [""] * (2 if found.positive else 1)
    means = [_cell(found.mean, m) for m in shown]
    rows.append(Line("Over the sites", "mean, each counting once", [*blank, *means], 2))
    worst = [
        f"{number(found.worst[m].estimate.value)}\n{found.worst[m].site}"
        if m in found.worst
        else "–"
        for m in shown
    ]
    rows.append(Line("", "worst site", [*blank, *worst]))
    return rows


def _side_line(found: SitesResult, s: SiteResult, side: str, shown: Sequence[str]) -> Line:
    of = s.away if side == "away" else s.home
    counts = [number(of.n)]
    if found.positive:
        counts.append(f"{number(of.n_positive)}\n{percent(of.prevalence)}")
    cells = [*counts, *(_cell(of.metrics, m) for m in shown)]
    return Line(s.site if side == "away" else "", SIDES[side], cells, 3 if side == "away" else 0)


def _difference_line(found: SitesResult, s: SiteResult, shown: Sequence[str]) -> Line:
    blank = [""] * (2 if found.positive else 1)
    tones = [*blank, *("warn" if _is_worse(s, m) else "" for m in shown)]
    cells = [_cell(s.difference, m, signed=True) for m in shown]
    return Line("", "difference", [*blank, *cells], tones=tones)


def _cell(metrics: Estimates, name: str, *, signed: bool = False) -> str:
    """The value, and the interval in a line below it."""
    return written(metrics.get(name, Estimate(value=None)), signed=signed).replace(" (", "\n(")


def _forest(found: SitesResult, metric: str, target: float | None) -> Forest | None:
    rows = []
    for s in found.sites:
        tone = "warn" if target is not None and s.held == "no" else ""
        for side, of, look in (("left out", s.away, tone), ("at home", s.home, "pale")):
            if metric in of.metrics:
                positives = "" if found.positive is None else f", {of.n_positive} {found.positive}"
                note = f"{of.n} images{positives}"
                rows.append(Row(side, of.metrics[metric], note, s.site, look))
    if not any(row.estimate.value is not None for row in rows):
        return None
    name = label(metric) if target is None else f"{label(metric)} at the others' threshold"
    line = "" if target is None else f" The line is at {target:g}, which was asked for."
    caption = f"Above the site when it was left out, below it the others at home.{line}"
    return forest(name, rows, caption=caption, reference=target, bounds=(0, 1))


def _points(found: SitesResult) -> list[tuple[str, list[tuple[str, str]]]]:
    """Of each site: threshold, verdict, certificate, calibrator and counts, with their tones."""
    rows = []
    for s in found.sites:
        p = s.point
        cells = [(number(s.n_trained), ""), (number(s.n_dropped), ""), (s.calibrator.kind, "")]
        if p is not None:
            low = "" if p.refer_from is None else f"{number(p.refer_from)} to "
            cells += [
                (f"{low}{number(p.threshold)}", ""),
                (s.held or "nothing was asked", TONES[s.held]),
                (f"certified: {p.reason}" if p.certified else p.reason, ""),
            ]
        rows.append((s.site, cells))
    return rows


def _about(found: SitesResult) -> str:
    asked = f" The threshold is for: {found.promise}." if found.promise else ""
    return (
        f"The params of trial {found.trial} ({found.backbone}), trained anew for each of "
        f"{plural(len(found.sites), 'site')} on all others, and asked about the images of the one "
        f"that gave none.{asked}"
    )


def _ranking_words(found: SitesResult) -> str:
    if "auroc" not in found.mean:
        return "There are too few cases to say."
    worst = found.worst["auroc"]
    homes = [s.home.metrics["auroc"].value or 0.0 for s in found.sites]
    return (
        f"At a site that gave it no image its AUROC is {told(found.mean['auroc'])} on average; at "
        f"home it is {number(sum(homes) / len(homes))}. The worst site is {worst.site} with "
        f"{told(worst.estimate)}."
    )


def _worse(found: SitesResult) -> str:
    """Sites and metrics whose difference lies wholly on the worse side."""
    named = []
    for s in found.sites:
        names = [words(m) for m in METRICS if _is_worse(s, m)]
        if names:
            named.append(f"{s.site} ({', '.join(names)})")
    return f"Clearly worse, by the interval of the difference: {'; '.join(named)}." if named else ""


def _is_worse(s: SiteResult, metric: str) -> bool:
    each = s.difference.get(metric, Estimate(value=None))
    if metric == "ece":  # of fewer images it is larger by chance
        return False
    if each.low is None or each.high is None:
        return False
    return each.low > 0 if metric in LESS else each.high < 0


def _named(found: SitesResult, held: Held) -> str:
    return ", ".join(s.site for s in found.sites if s.held == held)


def _headings(shown: Sequence[str]) -> list[str]:
    return [f"{label(m)} ↓" if m in LESS else label(m) for m in shown]
