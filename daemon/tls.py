"""TLS for the listening socket."""

from __future__ import annotations

import ssl
from pathlib import Path

from lhama.daemon.config import BadSetting, Settings


def context(settings: Settings) -> ssl.SSLContext | None:
    """What ``LHAMA_TLS_CERT`` and ``LHAMA_TLS_KEY`` ask for; ``None`` for plain HTTP.

    Raises ``BadSetting`` for files that cannot be used.
    """
    if settings.tls_cert is None:
        return None
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load(made, settings)
    return made


def load(into: ssl.SSLContext, settings: Settings) -> None:
    """Read certificate and key; done again on a context in use, new connections get them.

    Raises ``BadSetting``, and the context stays as it was.
    """
    certificate, key = settings.tls_cert, settings.tls_key
    for name, path in (("LHAMA_TLS_CERT", certificate), ("LHAMA_TLS_KEY", key)):
        if path is not None:
            _check(name, path)
    assert certificate is not None
    try:
        into.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        where = certificate if key is None else f"{certificate} and {key}"
        raise BadSetting(
            f"{where} are no certificate in PEM and the key that belongs to it: {error}"
        ) from None


def _check(name: str, path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadSetting(f"{name}: {path} cannot be read: {error.strerror}") from None


def _no_password() -> str:
    """Called for an encrypted key: a daemon has nobody to ask."""
    raise BadSetting("LHAMA_TLS_KEY: the key is encrypted; give one that is not")
