"""What a caller is told in the place of an answer: HTTP status, stable code, one line.

400 malformed_body, malformed_request, binary_extension_unsupported
401 unauthenticated            403 forbidden, bundle_not_allowed
404 not_found, unknown_model   405 method_not_allowed
408 slow_body                  409 no_canary, no_rollback
413 too_large, too_many_images, too_many_pixels
415 unsupported_type
422 no_image, damaged_image, invalid_parameter, invalid_prevalence, unknown_operating_point,
    unknown_class, no_explanations, bundle_refused
429 overloaded, rate_limited   500 internal
503 not_ready, members_lost, too_slow, audit_unavailable, rollout_not_kept

Ray Serve itself may answer 408, 429, 500 and 503 in plain text.
"""

from collections.abc import Mapping


class ProblemError(Exception):
    """A request that cannot be answered: HTTP status, stable code, one line for its sender."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
