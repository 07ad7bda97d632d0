"""What a request may ask for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.monitor.tracing import NO_SPAN, Span


@dataclass(frozen=True)
class Options:
    """The parameters of one request, checked for their form but not against a bundle.

    Attributes:
        operating_point: name; the bundle's first where None.
        prevalence: class: share where the probabilities are to hold, too.
        members: tell each member's own probabilities; then all of them are asked.
        explain: add a map of where the image speaks for the class.
        cascade: let cheap members answer alone where the bundle has a cascade.
        request_id: of the request.
        key: id of the API key that was used.
        trace: the span of the request.
    """

    operating_point: str | None = None
    prevalence: Mapping[str, float] = field(default_factory=dict)
    members: bool = False
    explain: bool = False
    cascade: bool = True
    request_id: str = ""
    key: str | None = None
    trace: Span = NO_SPAN
