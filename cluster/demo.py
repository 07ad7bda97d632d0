"""`consilium demo`: the whole flow on synthetic lesions, ending at a live endpoint."""

import socket
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.connect import connected
from cluster.console import messages, print_json, show_leaderboard, table
from cluster.steps import announce, build, search_trials
from search.atomic import write_text
from search.config import load_config
from search.data.synthetic import draw_lesion, write_dataset
from serving.client import Client
from serving.config import ServingConfig
from serving.environment import serve_environment
from serving.start import start_service

RECIPE = Path(__file__).with_name("demo.yaml")
N_IMAGES = 640
DIFFICULTY = 0.0
UNSEEN = 1_000_003  # a seed that the data set does not draw from


def run_demo(output: Path, *, keep: bool) -> None:
    """Draw lesions, search, build the ensemble, serve it, and ask it about unseen lesions.

    Run again, it goes on where it stopped.

    Args:
        output: receives data/, demo.yaml, study/, bundle/ and two unseen lesions.
        keep: leave the endpoint up until Ctrl-C.
    """
    start = time.monotonic()
    _step(1, f"drawing {N_IMAGES} synthetic lesions")
    write_dataset(output / "data", n_images=N_IMAGES, size=96, difficulty=DIFFICULTY)
    config = output / "demo.yaml"
    write_text(config, RECIPE.read_text(encoding="utf-8"))
    unseen = [_draw_unseen(output, malignant=malignant) for malignant in (False, True)]
    settings = load_config(config)
    with connected(environment=serve_environment(haproxy=False)):
        _step(2, f"searching: {settings.budget.trials} trials with Ray Tune and Optuna")
        table("Trials on the validation fold", search_trials(settings))
        _step(3, "building the calibrated ensemble")
        built = build(settings, config)
        _step(4, "serving it with Ray Serve")
        service = ServingConfig(bundle=settings.bundle_folder, port=_free_port(), max_replicas=1)
        start_service(
            service,
            blocking=keep,
            announce=lambda url: _ask(url, unseen, keep=keep),
        )
        show_leaderboard("demo", built)
    messages.print(f"audit: {settings.study_folder / 'audit.html'}", soft_wrap=True)
    messages.print(f"config: {config}, {time.monotonic() - start:.0f} s in all", soft_wrap=True)


def _ask(url: str, images: list[Path], *, keep: bool) -> None:
    """Send the unseen lesions to the endpoint and print its first answer in full."""
    _step(5, f"asking {url} about two lesions it has never seen")
    with Client(url) as client:
        answer = client.predict(*images)
    print_json(answer.model_dump(mode="json"))
    rows = [
        {"image": path.name, **found.probabilities, "decision": found.decision}
        for path, found in zip(images, answer.predictions, strict=True)
    ]
    table("The endpoint's answer", rows)
    if keep:
        announce(url)


def _draw_unseen(output: Path, *, malignant: bool) -> Path:
    rng = np.random.default_rng([UNSEEN, malignant])
    path = output / f"unseen_{'malignant' if malignant else 'benign'}.jpg"
    pixels = draw_lesion(rng, malignant=malignant, size=224, difficulty=DIFFICULTY)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _step(number: int, what: str) -> None:
    messages.rule(f"{number}/5 {what}", align="left")
