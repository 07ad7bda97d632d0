"""Plain FastAPI with torch eager, one request at a time: `python -m … BUNDLE --port N`.

What most tutorials do: an async endpoint that computes where it stands, torch's own threads.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from torch import nn

from ensemble.bundle import load_bundle
from ensemble.torch_engine import load_classifier
from tests.benchmarks.serve.peers.members import CLASSES, read


def build_app(members: list[nn.Module]) -> FastAPI:
    """An app that asks classifiers, each from pixels to logits."""
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, float]:
        pixels = torch.from_numpy(np.array(read(await request.body()))).unsqueeze(0)
        with torch.inference_mode():
            probs = [torch.softmax(member(pixels), dim=1)[0] for member in members]
        mean = torch.stack(probs).mean(dim=0)
        return dict(zip(CLASSES, mean.tolist(), strict=True))

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    bundle = load_bundle(given.bundle)
    members: list[nn.Module] = [load_classifier(bundle, m) for m in bundle.manifest.members]
    uvicorn.run(build_app(members), host="127.0.0.1", port=given.port, access_log=False)


if __name__ == "__main__":
    main()
