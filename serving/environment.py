"""What Ray Serve reads from the environment before it starts: on every node, where Ray starts."""

GATE = "serving.http.gate:middlewares"


def serve_environment(*, haproxy: bool) -> dict[str, str]:
    """Settings of the processes that serve.

    The gate strips the headers by which a client could steer Serve. What Serve calls
    throughput-optimised answers in the replica's own event loop.

    Args:
        haproxy: let HAProxy instead of Python take the connections. It is quicker, and listens
            with its metrics (9101) and its statistics (8404) on all interfaces, whatever the
            service's host: close these ports on a machine that others can reach.
    """
    settings = {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": GATE,
    }
    if not haproxy:
        # Else replicas open ports that nobody asks, and only the head's node takes requests.
        return settings | {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
    return settings | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # That a replica goes on answering once it is to end: 30 s if absent, also on a Ctrl-C.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
