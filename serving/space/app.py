"""The page of a Space: an image in; probabilities and a decision out.

It lies beside the bundle and the few modules of Consilium that score it. Nothing is scored before
every file is what the bundle says, and the golden images come out as they did when it was built.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.bundle import MANIFEST, Bundle
from ensemble.contents import verify_files
from ensemble.manifest import SCHEMA_VERSION, Manifest, canonical
from ensemble.runtime import Runtime
from search.data.transforms import decode
from search.errors import BundleError, ConsiliumError, DamagedImageError

HERE = Path(__file__).resolve().parent
NOTICE = "Educational and research use; not a medical device."
EXPECTED = "golden/probs.json"
TOLERANCE = 1e-4  # of a probability: another processor may round differently
LARGEST = 20 * 2**20  # bytes of an image file
KEPT_S = 60  # that Gradio keeps an uploaded file


def needed(manifest: Manifest) -> dict[str, str]:
    """SHA-256 by name of the files that a Space takes from a bundle: no weights, no report."""
    names = set(_scored_with(manifest)) | {"card.md"}
    return {
        name: digest
        for name, digest in manifest.files.items()
        if name in names or name.startswith("golden/")
    }


def open_bundle(folder: Path) -> Runtime:
    """Verify a Space's bundle, load its members, and score the golden images.

    Raises:
        BundleError: a file is missing, changed or not listed; or a golden image comes out
            differently.
    """
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    document = json.loads(text)
    if document.get("schema_version") != SCHEMA_VERSION or canonical(document) != text:
        raise BundleError(f"{folder / MANIFEST}: changed since it was built; write the Space again")
    manifest = Manifest.model_validate(document)
    verify_files(folder, needed(manifest), _scored_with(manifest), index=MANIFEST)
    runtime = Runtime(Bundle(folder, manifest))
    _check_golden(runtime)
    return runtime


def predict(
    runtime: Runtime, file: bytes, point: str | None = None
) -> tuple[dict[str, float], str]:
    """What the bundle says of one image.

    Args:
        file: as it was uploaded.
        point: name of an operating point; the first where none is named.

    Returns:
        Calibrated probabilities by class, and the decision in words.

    Raises:
        DamagedImageError: no image, or too large.
        BundleError: no such operating point.
    """
    if len(file) > LARGEST:
        raise DamagedImageError("the image is larger than 20 MB; send a smaller one")
    used = runtime.bundle.operating_point(point)
    found = runtime.predict([decode(file)])
    probs = dict(zip(runtime.bundle.manifest.classes, found.probs[0].tolist(), strict=True))
    lines = []
    if used is not None:
        lines += [
            f"**{runtime.bundle.decide(found.probs[0], used)}** for "
            f"{runtime.bundle.manifest.positive}, at the operating point {used.name} "
            f"({used.target}): threshold {used.threshold:.4g}, "
            + ("certified" if used.certified else f"not certified: {used.reason}")
        ]
    if found.novel is not None and found.novel[0]:
        lines += ["This image is unlike the training images: the answer is worth little."]
    return probs, "\n\n".join([*lines, NOTICE])


def build(runtime: Runtime) -> Any:
    """The page, as Gradio's Blocks."""
    import gradio  # type: ignore[import-not-found]  # only a Space has it

    manifest = runtime.bundle.manifest
    points = [point.name for point in manifest.operating_points]
    title = f"{manifest.name} {manifest.version}"
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT_S, KEPT_S)) as page:
        gradio.Markdown(f"# {title}\n\n{NOTICE} Send no image of a patient.")
        with gradio.Row():
            with gradio.Column():
                # The file as it is: Gradio's own conversion would change the probabilities.
                image = gradio.Image(
                    type="filepath", image_mode=None, sources=["upload"], label="Image"
                )
                point = gradio.Dropdown(
                    points,
                    value=points[0] if points else None,
                    label="Operating point",
                    visible=bool(points),
                )
                button = gradio.Button("Score", variant="primary")
            with gradio.Column():
                label = gradio.Label(label="Calibrated probabilities")
                decision = gradio.Markdown()
        golden = sorted(str(path) for path in (runtime.bundle.folder / "golden").glob("*.png"))
        gradio.Examples([[path] for path in golden], inputs=[image], cache_examples=False)
        gradio.Markdown(f"Bundle {manifest.digest}")
        button.click(
            partial(_answer, runtime, gradio.Error),
            inputs=[image, point],
            outputs=[label, decision],
            api_name="score",
        )
    return page


def main() -> None:
    """Serve the page; called by the Space."""
    page = build(open_bundle(HERE / "bundle"))
    page.queue(max_size=32, default_concurrency_limit=1)
    page.launch(max_file_size=LARGEST, run_history=False, show_error=False)


def _answer(
    runtime: Runtime, refuse: type[Exception], path: str | None, point: str | None
) -> tuple[dict[str, float], str]:
    if path is None:
        raise refuse("no image; choose one")
    with Path(path).open("rb") as file:
        content = file.read(LARGEST + 1)
    try:
        return predict(runtime, content, point)
    except ConsiliumError as error:
        raise refuse(str(error)) from error


def _scored_with(manifest: Manifest) -> list[str]:
    names = [network.onnx_file for member in manifest.members for network in member.networks]
    if manifest.out_of_distribution is not None:
        names.append(manifest.out_of_distribution.reference_file)
    return [*names, EXPECTED]


def _check_golden(runtime: Runtime) -> None:
    folder = runtime.bundle.folder
    expected = json.loads((folder / EXPECTED).read_text(encoding="utf-8"))["onnx"]
    for name, probs in expected.items():
        found = runtime.predict([decode(folder / "golden" / Path(name).name)]).probs[0]
        off = float(np.abs(found - np.asarray(probs)).max())
        if not off <= TOLERANCE:
            raise BundleError(
                f"{folder}: golden image {name} comes out {off:.1e} off, the limit is "
                f"{TOLERANCE:g}; install the versions in requirements.txt"
            )


if __name__ == "__main__":
    main()
