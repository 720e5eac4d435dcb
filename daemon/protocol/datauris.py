"""Images that travel in requests as data URIs."""

from __future__ import annotations

from lhama.daemon.errors import Malformed
from lhama.daemon.protocol import gobase64

_IMAGES = (
    "data:;base64,",
    *(f"data:image/{kind};base64," for kind in ("jpeg", "jpg", "png", "webp")),
)


def image(url: str) -> bytes:
    """The image in a data URI; an address of one is not followed. Raises ``Malformed``."""
    if url.startswith(("http://", "https://")):
        raise Malformed(
            "image URLs are not currently supported, please use base64 encoded data instead"
        )
    for prefix in _IMAGES:
        if url.startswith(prefix):
            try:
                return gobase64.decode(url[len(prefix) :])
            except ValueError:
                break
    raise Malformed("invalid image input")
