"""The page at `/`, as files of its own: no script or style stands inside the HTML."""
