"""What the service may use and accept."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from search.config import Location
from search.data.transforms import MAX_PIXELS
from search.params import Config

MEBIBYTE = 1024 * 1024


class ServingConfig(Config):
    """One service: a bundle, where it listens, what it may spend, what it takes."""

    bundle: Location = Field(description="folder that consilium ensemble made")
    digest: str | None = Field(None, description="the bundle's; a replica refuses any other")
    host: str = Field("127.0.0.1", description="0.0.0.0 opens it to the network")
    port: int = Field(8000, ge=1, le=65535)

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 2
    cpus: PositiveInt = Field(1, description="of one replica: as many requests work at once")
    max_ongoing_requests: PositiveInt = Field(16, description="that one replica holds")
    max_queued_requests: PositiveInt = Field(64, description="that wait; more are answered 429")
    request_timeout_s: float = Field(30, gt=0)

    max_image_bytes: PositiveInt = Field(20 * MEBIBYTE, description="of one image file")
    max_body_bytes: PositiveInt = Field(64 * MEBIBYTE, description="of a whole request")
    max_images: PositiveInt = Field(16, description="in one request")
    max_pixels: PositiveInt = Field(MAX_PIXELS, description="width times height of one image")

    @model_validator(mode="after")
    def _replicas_are_ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}"
            )
        return self

    @property
    def url(self) -> str:
        """Where the service answers, as seen from its own machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
