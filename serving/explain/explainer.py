"""Explanations of a served ensemble: an image in, maps of its members out."""

import base64
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.bundle import Bundle, load_bundle
from ensemble.manifest import Member
from search.data.transforms import prepare
from search.errors import BundleError, ServingError
from serving.explain.overlay import as_rows, heat_png, pool_maps
from serving.images import decode_image
from serving.problems import ProblemError

if TYPE_CHECKING:  # torch is loaded where the first explanation is made
    from search.training.backbones import Classifier

MOST_BUNDLES = 2  # the one that serves and the one before or beside it
MOST_NETWORKS = 5  # of one member
Floats = NDArray[np.float32]


class OpenBundle:
    """A bundle and those of its networks that were asked for so far."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._networks: dict[str, list[Classifier]] = {}

    def networks(self, member: Member) -> "list[Classifier]":
        """A member's networks, the first five.

        Raises:
            BundleError: one of them cannot be loaded.
        """
        from ensemble.torch_engine import load_classifier

        if member.name not in self._networks:
            indices = range(min(len(member.networks), MOST_NETWORKS))
            self._networks[member.name] = [load_classifier(self.bundle, member, n) for n in indices]
        return self._networks[member.name]


class Explainer:
    """Explains images, one at a time. Holds the two bundles that were asked for last."""

    def __init__(self, max_pixels: int) -> None:
        """Set torch to one thread in this process.

        Args:
            max_pixels: width times height of an image; more are refused.
        """
        import torch

        torch.set_num_threads(1)
        self._max_pixels = max_pixels
        self._lock = Lock()  # layers are watched by hooks, which know no threads
        self._open: OrderedDict[str, OpenBundle] = OrderedDict()

    def explain(
        self,
        file: bytes,
        folder: str,
        digest: str,
        class_name: str | None = None,
        members: list[str] | None = None,
    ) -> dict[str, Any]:
        """Where an image speaks for a class, by member and pooled by the members' weights.

        Args:
            file: of the image.
            folder: of the bundle.
            digest: the bundle's; any other is refused.
            class_name: what to explain; None: the positive class, or the most probable one by the
                mean over the networks where the bundle has none.
            members: names of those to ask; None: all.

        Returns:
            The fields of `serving.schemas.Explanation`, ready for JSON. A member without a map
            (see `explain_network`) is left out.

        Raises:
            ProblemError: 413, 422: the image or the class.
            BundleError: the bundle is damaged or another, or a network cannot be loaded.
            ServingError: no member keeps a map.
        """
        image = decode_image(file, 1, max_pixels=self._max_pixels)
        with self._lock:
            opened = self._opened(folder, digest)
            asked = _asked(opened.bundle, members)
            index = _class_index(opened.bundle, class_name)
            if index is None:
                index = _most_probable(opened, asked, image)
            maps = _member_maps(opened, asked, image, index)
        pooled = pool_maps(maps, {member.name: member.weight for member in asked})
        return {
            "class_name": opened.bundle.manifest.classes[index],
            "overlay_png": base64.b64encode(heat_png(pooled, image.size)).decode("ascii"),
            "map": as_rows(pooled),
            "members": {name: as_rows(heat) for name, heat in maps.items()},
        }

    def _opened(self, folder: str, digest: str) -> OpenBundle:
        if digest not in self._open:
            bundle = load_bundle(Path(folder))
            if bundle.manifest.digest != digest:
                raise BundleError(
                    f"{folder}: its digest is {bundle.manifest.digest}, not {digest}; "
                    "name the bundle that is served"
                )
            while len(self._open) >= MOST_BUNDLES:
                self._open.popitem(last=False)
            self._open[digest] = OpenBundle(bundle)
        self._open.move_to_end(digest)
        return self._open[digest]


def _asked(bundle: Bundle, names: list[str] | None) -> list[Member]:
    members = {member.name: member for member in bundle.manifest.members}
    if names is None:
        return list(members.values())
    unknown = set(names) - set(members)
    if unknown or not names:
        raise BundleError(
            f"{bundle.folder}: no members {', '.join(sorted(unknown)) or '(none named)'}; "
            f"there are {', '.join(members)}"
        )
    return [member for name, member in members.items() if name in names]


def _class_index(bundle: Bundle, name: str | None) -> int | None:
    """Of the class named, or else of the positive one; None where there is neither."""
    if name is None:
        return bundle.positive_index
    classes = bundle.manifest.classes
    if name not in classes:
        raise ProblemError(
            422, "unknown_class", f"no class {name[:100]!r}; this bundle has {', '.join(classes)}"
        )
    return classes.index(name)


def _most_probable(opened: OpenBundle, members: list[Member], image: Image.Image) -> int:
    """The class that the networks' mean gives most to, uncalibrated."""
    import torch

    total = np.zeros(len(opened.bundle.manifest.classes))
    for member in members:
        pixels = torch.from_numpy(prepare(image, member.preprocessing)[None])
        networks = opened.networks(member)
        with torch.inference_mode():
            for classifier in networks:
                probs = torch.softmax(classifier(pixels), dim=1)[0].numpy()
                total += member.weight / len(networks) * probs
    return int(total.argmax())


def _member_maps(
    opened: OpenBundle, members: list[Member], image: Image.Image, index: int
) -> dict[str, Floats]:
    """The map of each member that keeps one: the mean over its networks."""
    from serving.explain.gradcam import explain_network

    maps: dict[str, Floats] = {}
    for member in members:
        pixels = prepare(image, member.preprocessing)
        try:
            own = {
                str(n): explain_network(classifier, pixels, index)
                for n, classifier in enumerate(opened.networks(member))
            }
        except ServingError as error:
            mapless = error
            continue
        maps[member.name] = pool_maps(own, dict.fromkeys(own, 1.0))
    if not maps:
        raise mapless
    return maps
