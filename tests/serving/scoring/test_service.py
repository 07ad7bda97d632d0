"""A service without its HTTP interface."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime
from search.data.transforms import decode
from search.errors import BundleError
from serving.config import Rollout, ServingConfig, Version
from serving.problems import ProblemError
from serving.schemas import ImagePrediction
from serving.scoring.board import MemoryBoard
from serving.scoring.options import Options
from serving.scoring.service import Service
from tests.serving.bundles import rebuilt
from tests.serving.conftest import started
from tests.tiny import tiny_bytes, write_tiny_bundle


def said(service: Service, file: bytes, **options: Any) -> ImagePrediction:
    """What a service says of one file."""
    [found] = asyncio.run(service.predict([file], Options(**options))).predictions
    return found


def test_golden_images_that_come_out_as_built_let_a_service_start(
    tmp_path: Path, bundle_folder: Path
) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, golden=1e-5)
    service = started(ServingConfig(bundle=folder))
    assert service.ready
    service.close()
    assert not service.ready


def test_golden_images_that_come_out_otherwise_stop_it(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, golden=2e-3)
    with pytest.raises(BundleError, match=r"golden images come out 2\.0e-03 off"):
        started(ServingConfig(bundle=folder))


def test_a_changed_bundle_is_not_served(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder)
    (folder / "card.md").write_text("# another\n")
    with pytest.raises(BundleError, match=r"card\.md: changed"):
        started(ServingConfig(bundle=folder))


def test_a_bundle_of_another_digest_is_not_served(bundle_folder: Path) -> None:
    with pytest.raises(BundleError, match=r"has the digest \w{12}, not the one asked for, 0000"):
        started(ServingConfig(bundle=bundle_folder, digest="0" * 64))


def test_without_a_positive_class_nothing_is_decided(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, positive=None)
    service = started(ServingConfig(bundle=folder))
    file = tiny_bytes(3)
    found = said(service, file)
    service.close()
    assert (found.decision, found.operating_point) == (None, None)
    members = Runtime(load_bundle(folder)).predict([decode(file)])
    top = int(members.probs[0].argmax())
    assert found.uncertainty.spread == pytest.approx(float(members.member_probs[:, 0, top].std()))


def test_without_an_operating_point_nothing_is_decided(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, operating_points=[])
    service = started(ServingConfig(bundle=folder))
    found = said(service, tiny_bytes())
    service.close()
    assert (found.decision, found.operating_point) == (None, None)


@pytest.mark.parametrize(("above", "decision"), [(False, "positive"), (True, "negative")])
def test_a_probability_at_the_threshold_is_positive(
    tmp_path: Path, bundle_folder: Path, service: Service, above: bool, decision: str
) -> None:
    probability = said(service, tiny_bytes()).probabilities["malignant"]
    threshold = float(np.nextafter(probability, 1)) if above else probability
    point = service.manifest.operating_points[0].model_copy(update={"threshold": threshold})
    folder = rebuilt(tmp_path / "bundle", bundle_folder, operating_points=[point])
    at = started(ServingConfig(bundle=folder))
    assert said(at, tiny_bytes()).decision == decision
    at.close()


def test_equal_probabilities_are_all_the_uncertainty_there_is(service: Service) -> None:
    found = said(service, tiny_bytes(2))
    entropy = -sum(p * np.log2(p) for p in found.probabilities.values())  # of two classes, in bits
    assert found.uncertainty.entropy == pytest.approx(entropy)


def test_one_member_alone_has_no_spread(tmp_path: Path) -> None:
    service = started(ServingConfig(bundle=write_tiny_bundle(tmp_path / "one", n_members=1)))
    found = said(service, tiny_bytes())
    service.close()
    assert (found.asked, found.uncertainty.spread) == (1, None)


def test_nothing_heavy_is_done_on_the_event_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    decoding(monkeypatch, lambda: threads.append(threading.current_thread().name))
    asyncio.run(service.predict([tiny_bytes(), tiny_bytes(1)], Options()))
    assert len(threads) == 2
    assert all(name.startswith("members") for name in threads)


def decoding(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> list[int]:
    """Have something happen before each decoding; the calls are noted."""
    calls: list[int] = []

    def spy(file: bytes, index: int, *, max_pixels: int) -> Any:
        calls.append(index)
        before()
        return decode(file, max_pixels=max_pixels)

    monkeypatch.setattr("serving.scoring.question.decode_image", spy)
    return calls


def test_identical_images_in_flight_are_scored_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    calls = decoding(monkeypatch, lambda: opened.wait(10))

    async def ask() -> list[float]:
        asked = [
            asyncio.ensure_future(service.predict([tiny_bytes(8)], Options())) for _ in range(5)
        ]
        await asyncio.sleep(0)
        opened.set()
        answers = await asyncio.gather(*asked)
        return [answer.predictions[0].probabilities["malignant"] for answer in answers]

    assert len(set(asyncio.run(ask()))) == 1
    assert len(calls) == 1
    asyncio.run(service.predict([tiny_bytes(8)], Options()))
    assert len(calls) == 2  # nothing is kept once it is answered


def test_an_image_too_many_is_refused_at_once_and_the_others_are_answered(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = started(ServingConfig(bundle=bundle_folder, max_images=1, max_waiting_images=2))
    opened = threading.Event()
    decoding(monkeypatch, lambda: opened.wait(10))

    async def ask() -> None:
        files = [tiny_bytes(seed) for seed in range(3)]
        waiting = [asyncio.ensure_future(service.predict([f], Options())) for f in files[:2]]
        await asyncio.sleep(0)
        with pytest.raises(ProblemError, match=r"2 images wait here already") as refused:
            await service.predict([files[2]], Options())
        assert (refused.value.status, refused.value.code) == (429, "overloaded")
        assert refused.value.headers == {"Retry-After": "1"}
        opened.set()
        assert len(await asyncio.gather(*waiting)) == 2
        assert await service.predict([files[2]], Options())

    asyncio.run(ask())
    service.close()


def test_who_goes_away_leaves_the_work_to_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = threading.Event()
    decoding(monkeypatch, lambda: opened.wait(10))

    async def ask() -> None:
        gone, other = (
            asyncio.ensure_future(service.predict([tiny_bytes(9)], Options())) for _ in range(2)
        )
        await asyncio.sleep(0)
        gone.cancel()
        opened.set()
        assert (await other).predictions[0].sha256

    asyncio.run(ask())


def test_what_takes_too_long_is_given_up(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = started(ServingConfig(bundle=bundle_folder, request_timeout_s=0.05))
    opened = threading.Event()
    decoding(monkeypatch, lambda: opened.wait(10))

    async def ask() -> None:
        with pytest.raises(ProblemError, match=r"not scored within 0\.05 s") as slow:
            await service.predict([tiny_bytes()], Options())
        assert (slow.value.status, slow.value.code) == (503, "too_slow")
        opened.set()

    asyncio.run(ask())
    service.close()


def test_a_rollout_that_cannot_be_loaded_is_kept_out_with_its_reason(
    bundle_folder: Path, tmp_path: Path
) -> None:
    service = started(ServingConfig(bundle=bundle_folder))
    new = rebuilt(tmp_path / "new", bundle_folder)
    bad = Rollout(bundles={"new": Version(path=new)}, serving="new")
    next((new / "members").glob("*.onnx")).unlink()
    service.desired.configured(bad)
    service.watch.look(service.versions, service.desired)
    [serving, refused] = service.describe().versions
    assert (serving.role, refused.name, refused.role) == ("serving", "new", "refused")
    assert refused.reason is not None
    assert "missing" in refused.reason
    assert said(service, tiny_bytes()).decision is not None
    service.close()


def test_a_replica_that_starts_under_a_refused_config_serves_as_the_others_still_do(
    bundle_folder: Path, tmp_path: Path
) -> None:
    board = MemoryBoard()
    first = Service(ServingConfig(), board=board)
    first.start(Rollout.of(bundle_folder))
    bad = Rollout(bundles={"new": Version(path=tmp_path / "nowhere")}, serving="new")
    first.desired.configured(bad)
    later = Service(ServingConfig(), board=board)
    later.start(bad)
    assert said(later, tiny_bytes()) == said(first, tiny_bytes())
    roles = [(state.name, state.role) for state in later.describe().versions]
    assert roles == [("bundle", "serving"), ("new", "refused")]
    with pytest.raises(BundleError, match=r"no readable bundle\.json"):
        Service(ServingConfig(), board=MemoryBoard()).start(bad)
    first.close()
    later.close()


def rolled_out(bundle_folder: Path, new: Path, **roles: Any) -> Service:
    """A service of a bundle `old` that answers, and one `new` with a role."""
    both = {"old": Version(path=bundle_folder), "new": Version(path=new)}
    service = Service(ServingConfig())
    service.start(Rollout.model_validate({"bundles": both, "serving": "old", **roles}))
    return service


def answered_by(service: Service, seed: int) -> str:
    """The version of the bundle that answers for an image."""
    return asyncio.run(service.predict([tiny_bytes(seed)], Options())).bundle.version


def test_a_canary_answers_its_share_and_is_compared_with_the_one_that_serves(
    bundle_folder: Path, tmp_path: Path
) -> None:
    new = rebuilt(tmp_path / "new", bundle_folder, version="2")
    service = rolled_out(bundle_folder, new, canary={"name": "new", "percent": 50})
    versions = [answered_by(service, seed) for seed in range(12)]
    assert set(versions) == {"1", "2"}
    assert [answered_by(service, seed) for seed in range(12)] == versions
    service.close()  # what waits is compared first
    counts = service.comparison.counts()["canary"]
    done = counts.agreements + counts.disagreements
    assert done + counts.dropped == 2 * versions.count("2")
    assert counts.disagreements == 0


def test_a_shadow_is_compared_and_never_returned(bundle_folder: Path, tmp_path: Path) -> None:
    new = rebuilt(tmp_path / "new", bundle_folder, version="2")
    service = rolled_out(bundle_folder, new, shadow="new")
    assert {answered_by(service, seed) for seed in range(5)} == {"1"}
    service.close()
    counts = service.comparison.counts()["shadow"]
    assert counts.agreements + counts.dropped == 5
    assert counts.disagreements == 0


def test_images_that_wait_go_to_the_members_together(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = started(ServingConfig(bundle=bundle_folder, cpus=1))
    sizes: list[int] = []
    whole = service.panel._runtime.ask

    def ask(member: int, pixels: Any) -> Any:
        sizes.append(len(pixels))
        return whole(member, pixels)

    monkeypatch.setattr(service.panel._runtime, "ask", ask)
    files = [tiny_bytes(seed) for seed in range(3)]

    async def predict() -> list[ImagePrediction]:
        free = threading.Event()
        service._pool.submit(free.wait, 30)
        answer = asyncio.create_task(service.predict(files, Options(cascade=False)))
        await asyncio.sleep(0.05)  # until all of them wait
        free.set()
        return (await answer).predictions

    together = asyncio.run(predict())
    assert sizes == [3, 3]
    for one, file in zip(together, files, strict=True):
        assert one.probabilities == pytest.approx(
            said(service, file, cascade=False).probabilities, abs=1e-6
        )
    service.close()
