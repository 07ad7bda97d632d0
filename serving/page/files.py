"""The page's three files, and the content policy that they are served under."""

from functools import cache
from importlib.resources import files

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
NAMES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


@cache
def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type by path; read once, so that no request touches the disk."""
    folder = files("serving.page")
    return {
        path: ((folder / name).read_bytes(), media_type)
        for path, (name, media_type) in NAMES.items()
    }
