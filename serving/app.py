"""The Ray Serve application: import path `serving.app:build_app`.

Without `from __future__ import annotations`: Ray reads the annotation to validate a YAML's args.
"""

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from serving.api import build_api
from serving.config import ServingConfig
from serving.service import Service

RETRY_AFTER_S = 1


class Ingress(Service):
    """A service that brings its own HTTP interface: no hop between the two."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once the service is built (see ray.serve.ingress)."""
        return build_api(self)


def build_app(args: ServingConfig) -> Application:
    """A deployment of one to many replicas, each with all members."""
    deployment = serve.deployment(
        name="ensemble",
        ray_actor_options={"num_cpus": args.cpus},
        max_ongoing_requests=args.max_ongoing_requests,
        max_queued_requests=args.max_queued_requests,
        backpressure_config={"status_code": 429, "retry_after_s": RETRY_AFTER_S},
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": 2 * args.cpus,
            "downscale_delay_s": 60,
        },
        max_constructor_retry_count=3,
    )
    return deployment(serve.ingress()(Ingress)).bind(args)
