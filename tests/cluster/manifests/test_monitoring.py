"""What is scraped, alerted and shown: whether it parses, fires when it should, and exists."""

import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.manifests.monitoring_live import Site, watched_site
from tests.cluster.manifests.monitoring_names import (
    BOARDS,
    FOLDER,
    OTHERS,
    SEEN,
    UNSEEN,
    alerts,
    board,
    labels_of,
    metrics_of,
    own_families,
    shown,
)

ANCHOR = "cluster/README.md#when-an-alert-fires"
EXPRESSIONS = [rule["expr"] for rule in alerts()] + [e for b in BOARDS for _, e in shown(b)]


def promtool(*words: str | Path) -> str:
    """What promtool says of a file; it takes it."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def drops(document: dict[str, Any]) -> list[str]:
    """The patterns of metrics that are thrown away, wherever they stand."""
    found: list[str] = []
    for key, value in document.items():
        if key in ("metric_relabel_configs", "metricRelabelings"):
            found += [rule["regex"] for rule in value if rule["action"] == "drop"]
        for inner in value if isinstance(value, list) else [value]:
            found += drops(inner) if isinstance(inner, dict) else []
    return found


def test_prometheus_takes_the_config_and_its_rules() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "config", "prometheus.yaml")


def test_every_alert_fires_when_it_should_and_no_other_does() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")


def test_each_alert_is_shown_firing_and_silent_on_the_same_series() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    fires: set[str] = set()
    for test in tests:
        first, *rest = test["promql_expr_test"]
        assert first["exp_samples"] == [], test["name"]
        for later in rest:
            fires |= set(re.findall(r'alertname="(\w+)"', json.dumps(later).replace("\\", "")))
    assert fires == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_mends_it(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    summary, mend = rule["annotations"]["summary"], rule["annotations"]["runbook"]
    assert mend == ANCHOR
    assert re.search(r"[:;.] ", summary), "what is so, then what to do"
    labels = set(re.findall(r"\$labels\.(\w+)", summary))
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))))
    assert labels <= kept | {"instance"}, "an aggregate has no other labels"


def test_every_name_that_is_asked_for_exists() -> None:
    asked = set().union(*map(metrics_of, EXPRESSIONS))
    own = set(own_families())
    assert asked - own - SEEN - set(UNSEEN) == set()
    assert (SEEN | set(UNSEEN)) - asked == set(), "the lists name nothing that is not asked for"


def test_everything_that_this_project_counts_is_shown_or_alerted() -> None:
    asked = set().union(*map(metrics_of, EXPRESSIONS))
    assert set(own_families()) - asked == set()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_own_metrics_are_selected_by_labels_that_they_have(expression: str) -> None:
    own = own_families()
    for name, labels in labels_of(expression).items():
        assert name not in own or labels <= {*own[name], *OTHERS}, name


def test_ray_itself_names_what_needs_a_gpu_or_that_memory_runs_out() -> None:
    from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    assert "ray_memory_manager_worker_eviction_total{" in inspect.getsource(
        default_dashboard_panels
    )
    needs = {n.removeprefix("ray_") for n, why in UNSEEN.items() if "GPU" in why}
    assert len(needs) == 3
    assert needs <= set(METRICS_GAUGES)


def test_vms_and_kuberay_throw_the_same_away_and_nothing_that_is_asked_for() -> None:
    ours = drops(yaml.safe_load((FOLDER / "prometheus.yaml").read_text()))
    theirs = drops(yaml.safe_load((FOLDER / "podmonitor.yaml").read_text()))
    assert len(ours) == 1
    assert ours == theirs
    asked = set().union(*map(metrics_of, EXPRESSIONS))
    assert [name for name in asked if re.fullmatch(ours[0], name)] == []


def test_both_scrapes_give_the_labels_that_the_rules_go_by() -> None:
    [job] = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]
    assert {rule["target_label"] for rule in job["relabel_configs"]} == {"job", "ray_io_cluster"}
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    labels = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
    assert set(labels) == {"job", "ray_io_cluster"}
    assert labels["job"]["replacement"] == "ray"


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_one_that_grafana_takes(name: str) -> None:
    document = board(name)
    assert document["schemaVersion"] >= 39
    assert document["uid"] == f"consilium-{name}"
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = [one["name"] for one in document["templating"]["list"]]
    assert variables == ["datasource", "cluster", {"search": "study"}.get(name, "application")]
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(document))) - {"__rate_interval", "__all"} <= {
        *variables
    }


@pytest.mark.parametrize("name", BOARDS)
def test_no_two_panels_of_a_dashboard_lie_over_each_other(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']}, {taken[x, y]}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_a_unit_and_a_legend_for_each_series(name: str) -> None:
    panels = [panel for panel in board(name)["panels"] if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            assert target["datasource"] == panel["datasource"]
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = re.findall(r"by \(([^)]*)\)", target["expr"])
            assert not kept or named <= set(re.findall(r"\w+", " ".join(kept))), panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_expression_of_a_dashboard_is_promql(name: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{i}", "expr": e} for i, (_, e) in enumerate(shown(name))]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", path)


# Without data where there is no GPU, nothing novel, and nothing went wrong.
EMPTY = {
    ("Failed share", "{{study}}"),
    ("GPU use", "{{instance}} {{GpuIndex}}"),
    ("GPU memory", "{{instance}} {{GpuIndex}}"),
    ("Processes ended for memory", "{{instance}} an hour"),
    ("Novel images", "{{bundle}}"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with watched_site(tmp_path_factory.mktemp("monitored")) as site:
        yield site


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_agent_tells_of_every_name_that_is_asked_for(site: Site) -> None:
    assert (SEEN | set(own_families())) - site.names == set(UNSEEN) & set(own_families())
    assert site.names & set(UNSEEN) == set(), "they can be seen after all"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_prometheus_has_data_for_every_panel(site: Site) -> None:
    given = [item for name in BOARDS for item in shown(name)]
    empty = {which for which, expression in given if not site.rows(expression)}
    running = ("Trials by status", "{{study}} running: {{phase}}")  # the search may have ended
    assert empty - {running} == EMPTY


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_prometheus_evaluates_every_rule_and_finds_what_is_amiss(
    site: Site,
) -> None:
    rules = site.rules()
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alerts()}
    assert {
        rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"
    } == {}
    raised = {rule["name"]: rule["state"] for rule in rules if rule["alerts"]}
    assert "BundleRefused" in raised
    critical = {rule["alert"] for rule in alerts() if rule["labels"]["severity"] == "critical"}
    assert {name for name in critical if raised.get(name) == "firing"} == set()
