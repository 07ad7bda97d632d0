"""The description of the interface: OpenAPI's document, made for the bundle that serves."""

import re
from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from ensemble.manifest import Manifest
from serving.http.front import OPEN
from serving.http.oip import add_examples
from serving.scoring.service import Service

BEARER = {"type": "http", "scheme": "bearer", "description": "a key that consilium key add made"}
HEADER = {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same"}
EITHER_KEY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
SHARE = r"0\.[0-9]{0,8}[1-9]"  # above 0, below 1, as people write it; 2e-2 is read, too
IMAGE_PATHS = ("/v1/predict", "/v1/explain")


class DescribedApp(FastAPI):
    """An app whose document names the classes, operating points and examples of its bundle."""

    def openapi(self) -> dict[str, Any]:
        """The document; made again once another bundle serves."""
        service: Service = self.state.service
        digest = service.panel.digest if service.ready else None
        if self.openapi_schema is None or self.state.described != digest:
            self.openapi_schema = None
            document = deepcopy(super().openapi())  # it holds constants of routes
            if digest is not None:
                name_bundle(document, service.manifest, service.examples())
                add_examples(document, service.manifest)
            add_security(document, keys=service.config.keys is not None)
            self.openapi_schema, self.state.described = document, digest
        return self.openapi_schema or {}


def name_bundle(document: dict[str, Any], manifest: Manifest, images: list[str]) -> None:
    """Say what the query of /v1 may name, and where there is an image to try."""
    points = [point.name for point in manifest.operating_points]
    classes = "|".join(re.escape(name) for name in manifest.classes)
    shares = {"type": "string", "pattern": f"^({classes}):{SHARE}$"}
    one = manifest.positive or manifest.classes[0]
    known: dict[str, tuple[dict[str, Any], Any]] = {
        "class": ({"type": "string", "enum": manifest.classes}, one),
        "prevalence": (
            {"type": "array", "items": shares, "maxItems": len(manifest.classes)},
            [f"{one}:0.02"],
        ),
    }
    if points:
        known["operating_point"] = ({"type": "string", "enum": points}, points[0])
    for path in IMAGE_PATHS:
        operation = document["paths"][path]["post"]
        for parameter in operation["parameters"]:
            if parameter["name"] in known:
                parameter["schema"], parameter["example"] = known[parameter["name"]]
        if images:
            golden = {"summary": "one of the bundle's", "externalValue": f"/examples/{images[0]}"}
            operation["requestBody"]["content"]["image/png"]["examples"] = {"golden": golden}


def add_security(document: dict[str, Any], *, keys: bool) -> None:
    """Say where a key is asked for: for admins always, for the rest where the service has keys."""
    schemes = {"bearer": BEARER, "header": HEADER}
    document.setdefault("components", {})["securitySchemes"] = schemes
    for path, operations in document["paths"].items():
        if path.startswith("/v1/admin") or (keys and path not in OPEN):
            for operation in operations.values():
                operation["security"] = EITHER_KEY
