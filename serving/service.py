"""One replica's work: files in, predictions out. All members live in one process."""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.bundle import load_bundle
from ensemble.decision.points import OperatingPoint
from ensemble.golden import check_golden
from ensemble.runtime import Runtime
from search.errors import BundleError
from serving.config import ServingConfig
from serving.images import decode_image
from serving.schemas import ImagePrediction, UsedPoint, identity


class Service:
    """A loaded, checked and warm bundle with a pool of threads to ask it in.

    Parallel between requests, not inside one: decoding and all members of a request are one task
    of a pool as wide as the replica's CPUs, and sessions have one thread each. The event loop
    only moves bytes.
    """

    def __init__(self, config: ServingConfig) -> None:
        """Load the bundle and make it ready.

        Raises:
            BundleError: it cannot be loaded, or its golden images come out otherwise than at build.
        """
        self.config = config
        self.bundle = load_bundle(config.bundle)
        if config.digest not in (None, self.bundle.manifest.digest):
            raise BundleError(
                f"{config.bundle}: built again since the service started; start the service anew"
            )
        self.identity = identity(self.bundle.manifest)
        self._runtime = Runtime(self.bundle)
        self._pool = ThreadPoolExecutor(config.cpus, thread_name_prefix="members")
        check_golden(self._runtime)
        blank = Image.new("RGB", (64, 64))
        list(self._pool.map(self._runtime.predict, [[blank]] * config.cpus))
        self.ready = True

    async def predict(
        self, files: Sequence[bytes], point: OperatingPoint | None
    ) -> list[ImagePrediction]:
        """One prediction a file, at an operating point of this bundle.

        Raises:
            ProblemError: a file is damaged or has too many pixels.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._predict, files, point)

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        self.ready = False
        self._pool.shutdown(cancel_futures=True)

    def _predict(
        self, files: Sequence[bytes], point: OperatingPoint | None
    ) -> list[ImagePrediction]:
        sizes, prepared = [], []
        for index, file in enumerate(files, 1):
            # Only the members' small pixels stay: 16 decoded photographs are gigabytes.
            image = decode_image(file, index, max_pixels=self.config.max_pixels)
            sizes.append(image.size)
            prepared.append(self._runtime.prepare(image))
        prediction = self._runtime.pooled(self._runtime.score(prepared))
        return [
            ImagePrediction(
                **self._judge(prediction.probs[i], prediction.member_probs[:, i], point),
                novel=None if prediction.novel is None else bool(prediction.novel[i]),
                sha256=hashlib.sha256(file).hexdigest(),
                width=sizes[i][0],
                height=sizes[i][1],
            )
            for i, file in enumerate(files)
        ]

    def _judge(
        self,
        probs: NDArray[np.float64],
        member_probs: NDArray[np.float32],
        point: OperatingPoint | None,
    ) -> dict[str, Any]:
        """What (n_classes,) pooled and (n_members, n_classes) probabilities say of one image."""
        positive = self.bundle.positive_index
        decision = self.bundle.decide(probs, point)
        used = None if decision is None else UsedPoint.model_validate(point, from_attributes=True)
        watched = int(probs.argmax()) if positive is None else positive
        return {
            "probabilities": dict(zip(self.bundle.manifest.classes, probs.tolist(), strict=True)),
            "decision": decision,
            "operating_point": used,
            "spread": float(member_probs[:, watched].std()),
        }
