"""What a registry's 401 asks for, and the request that earns a token: contract §6, "Auth"."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from lhama.daemon.durations import quote
from lhama.daemon.errors import RegistryError

_HUGGING_FACE = frozenset({"hf.co", "huggingface.co"})
"""One registry under two names: either may ask for a token of the other."""

_FIELD = re.compile(r'(\w+)="([^"]*)"')
_EMPTY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
"""The digest of a body that is not there, as it is signed."""


def same_registry(url: URL, registry: URL) -> bool:
    """Whether a URL is at the registry, where our tokens may be sent: scheme, host and port.

    Raises ``ValueError`` for a URL without a readable port.
    """
    if (url.scheme, url.port) != (registry.scheme, registry.port):
        return False
    hosts = {(url.raw_host or "").lower(), (registry.raw_host or "").lower()}
    return len(hosts) == 1 or (hosts <= _HUGGING_FACE and registry.scheme == "https")


def is_hugging_face(registry: URL) -> bool:
    """Whether the registry is Hugging Face, surely: over TLS."""
    return registry.scheme == "https" and (registry.raw_host or "").lower() in _HUGGING_FACE


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where to get a token, and for what."""

    realm: str
    service: str
    scope: str

    @classmethod
    def read(cls, headers: CIMultiDictProxy[str]) -> Challenge:
        """From ``WWW-Authenticate: Bearer …``; empty fields where there is no such header."""
        offers = headers.getall("WWW-Authenticate", [])
        bearer = next((offer for offer in offers if offer.lower().startswith("bearer ")), "")
        fields = dict(_FIELD.findall(bearer))
        return cls(*(fields.get(name, "") for name in ("realm", "service", "scope")))

    def url(self, asked: URL) -> URL:
        """The token's URL. Raises ``RegistryError`` unless it is at the registry asked.

        Host, port and scheme must be the same: what is sent there signs us in (CVE-2025-51471).
        """
        try:
            realm = URL(self.realm, encoded=True)
            same = same_registry(realm, asked)
        except ValueError:
            raise RegistryError(f"the registry's realm is no URL: {quote(self.realm)}") from None
        if not same:
            scheme = realm.raw_authority == asked.raw_authority
            what, theirs, ours = (
                ("scheme", realm.scheme, asked.scheme)
                if scheme
                else ("host", realm.raw_authority, asked.raw_authority)
            )
            raise RegistryError(
                f"realm {what} {quote(theirs)} does not match original {what} {quote(ours)}"
            )
        query = parse_qsl(realm.raw_query_string, keep_blank_values=True)
        query += [("service", self.service), *(("scope", s) for s in self.scope.split(" "))]
        query += [("ts", str(int(time.time()))), ("nonce", _nonce())]
        text = str(realm.with_query(None).with_fragment(None))
        return URL(f"{text}?{urlencode(sorted(query))}", encoded=True)


def to_be_signed(url: URL) -> bytes:
    """What proves that we asked for the token at this URL."""
    return f"GET,{url},{_EMPTY}".encode()


def read_token(body: bytes) -> str:
    """Raises ``RegistryError`` for a reply without a token."""
    try:
        reply = msgspec.json.decode(body, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RegistryError(f"the registry's token cannot be read: {error}") from None
    token = reply.token or reply.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise RegistryError("the registry sent no token")
    return token


def _nonce() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
