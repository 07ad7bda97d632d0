"""What the service may use and accept, and which bundles it serves."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from search.data.transforms import MAX_PIXELS
from search.params import Config
from search.paths import Location

MEBIBYTE = 1024 * 1024


class Version(Config):
    """One bundle that the service may load."""

    path: Location = Field(description="folder that consilium ensemble made")
    digest: str | None = Field(None, description="the bundle's; any other is refused")


class Canary(Config):
    """A bundle that answers a share of the requests."""

    name: str
    percent: float = Field(gt=0, le=100, description="of requests; by the first image's hash")


class Rollout(Config):
    """Which bundles are served: Serve's `user_config`, and what an admin may change while it runs.

    Changing it loads and checks what is new beside the requests; replicas stay.
    """

    bundles: dict[str, Version] = Field(min_length=1, description="by a name of yours")
    serving: str = Field(description="name of the bundle that answers")
    canary: Canary | None = None
    shadow: str | None = Field(None, description="scored and compared, never returned")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        used = [self.serving, None if self.canary is None else self.canary.name, self.shadow]
        for name in used:
            if name is not None and name not in self.bundles:
                known = ", ".join(self.bundles)
                raise ValueError(f"{name!r} is none of the bundles; there are {known}")
        canary = None if self.canary is None else self.canary.name
        for role, name in (("canary", canary), ("shadow", self.shadow)):
            if name == self.serving:
                raise ValueError(f"the {role} is the serving bundle itself; name another")
        return self

    @classmethod
    def of(cls, path: Location, digest: str | None = None) -> "Rollout":
        """One bundle alone."""
        return cls(bundles={"bundle": Version(path=path, digest=digest)}, serving="bundle")


class RateConfig(Config):
    """What one API key may send to one replica; where no keys are asked for nobody is limited."""

    per_minute: PositiveInt = Field(6000, description="requests, on average")
    burst: PositiveInt = Field(300, description="requests at once")


class AuditConfig(Config):
    """The audit log: one JSON line an image; no pixels."""

    folder: Location = Field(description="receives one file a replica")
    megabytes: PositiveInt = Field(64, description="of one file before the next is begun")
    files: PositiveInt = Field(16, description="kept of one replica")


class ExplainConfig(Config):
    """The deployment that explains."""

    max_replicas: PositiveInt = 1
    cpus: float = Field(0, ge=0, description="that Ray sets aside for one replica; 0: none")
    max_waiting: PositiveInt = Field(8, description="explanations; more are answered 429")


class ServingConfig(Config):
    """One service: what it may spend, what it takes, whom it lets in."""

    bundle: Location | None = Field(None, description="short for a rollout of this one bundle")
    digest: str | None = Field(None, description="of that bundle; any other is refused")
    host: str = Field("127.0.0.1", description="0.0.0.0 opens it to the network")
    port: int = Field(8000, ge=1, le=65535)

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 2
    cpus: PositiveInt = Field(1, description="of one replica: as many threads decode and score")
    gpus: float = Field(
        0, ge=0, description="of one replica; above 0 torch scores there, in batches"
    )
    engine: Literal["onnx", "int8", "torch"] = Field(
        "onnx", description="torch where there is a GPU"
    )
    batch: PositiveInt = Field(32, description="images that a GPU scores at once")
    batch_wait_s: PositiveFloat = Field(0.005, description="that a batch waits to fill")
    target_ongoing_requests: PositiveFloat = Field(4, description="of a replica; more adds one")
    upscale_delay_s: float = Field(5, ge=0)
    downscale_delay_s: float = Field(300, ge=0)
    max_ongoing_requests: PositiveInt = Field(128, description="that one replica holds")
    max_queued_requests: PositiveInt = Field(256, description="that wait for any replica")
    max_waiting_images: PositiveInt = Field(
        64, description="in one replica, those that are scored too; more are answered 429"
    )
    request_timeout_s: PositiveFloat = Field(30, description="for the answer")
    body_timeout_s: PositiveFloat = Field(15, description="for the whole body; later is 408")

    max_image_bytes: PositiveInt = Field(20 * MEBIBYTE, description="of one image file")
    max_body_bytes: PositiveInt = Field(64 * MEBIBYTE, description="of a whole request")
    max_held_bytes: PositiveInt = Field(
        512 * MEBIBYTE, description="of bodies that are read or answered; more are answered 429"
    )
    max_images: PositiveInt = Field(16, description="in one request")
    max_pixels: int = Field(
        25_000_000, ge=1, le=MAX_PIXELS, description="of one image; each costs up to 20 bytes"
    )

    cascade: bool = Field(True, description="where the bundle has one")
    explain: ExplainConfig | None = ExplainConfig()
    examples: bool = Field(True, description="the bundle's golden images on the page")

    keys: Location | None = Field(None, description="file of hashed API keys; read again on change")
    insecure: bool = Field(False, description="no keys although the host is not this machine")
    rate: RateConfig | None = RateConfig()
    cors_origins: list[str] = Field(default=[], description="web pages elsewhere that may ask")
    bundle_root: Location | None = Field(
        None, description="an admin may name new bundles below it; unset: only those named here"
    )

    access_log: bool = True
    audit: AuditConfig | None = None
    traces: str | None = Field(None, description="URL of an OpenTelemetry collector (OTLP, HTTP)")
    drift_window: int = Field(1000, ge=100, description="newest images that drift is told by")

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}"
            )
        if self.max_waiting_images < self.max_images:
            raise ValueError(
                f"max_waiting_images {self.max_waiting_images} is below max_images "
                f"{self.max_images}: a request of so many would always be refused"
            )
        if self.gpus and self.engine != "torch":
            raise ValueError(f"engine {self.engine} runs on CPUs; set engine: torch, or gpus: 0")
        if not _is_loopback(self.host) and self.keys is None and not self.insecure:
            raise ValueError(
                f"host {self.host} can be reached from other machines and no keys are asked for; "
                "name a file of keys (consilium key add), or say insecure"
            )
        return self

    def of(self, bundle: Path) -> "ServingConfig":
        """The same for one bundle."""
        return self.model_copy(update={"bundle": bundle.expanduser().resolve()})

    @property
    def rollout(self) -> Rollout | None:
        """What `bundle` is short for."""
        return None if self.bundle is None else Rollout.of(self.bundle, self.digest)

    @property
    def url(self) -> str:
        """Where the service answers, as seen from its own machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def as_user_config(rollout: Rollout) -> dict[str, Any]:
    """A rollout as Serve's user_config takes it: plain JSON."""
    return rollout.model_dump(mode="json", exclude_defaults=True)
