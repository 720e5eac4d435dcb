"""``/ui``: one page that shows what the daemon does. It asks the API as any client would."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from aiohttp import web

from lhama.daemon.web.replies import plain_reply
from lhama.daemon.web.service import SERVICE

PATH = "/ui"


async def show(request: web.Request) -> web.Response:
    """The page; 404 where ``LHAMA_UI`` turns it off."""
    if not request.app[SERVICE].settings.ui:
        return plain_reply("404 page not found", status=404)
    body, policy = _page()
    return web.Response(
        body=body,
        headers={
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


@cache
def _page() -> tuple[bytes, str]:
    """The file, and a policy that lets this very script run, and none that anybody slips in."""
    text = resources.files("lhama.daemon.web").joinpath("page.html").read_text("utf-8")
    hashes = {kind: _hash(text, kind) for kind in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def _hash(text: str, kind: str) -> str:
    """Of the one inline element of a kind, as a policy names it."""
    (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
