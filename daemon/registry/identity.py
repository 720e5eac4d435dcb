"""The key this machine signs in with: Ollama's own, so that accounts that know it know lhama too."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from lhama.daemon.errors import RegistryError


class CannotSign(RegistryError):
    """The package that signs is not installed."""


class Identity:
    """An Ed25519 key in OpenSSH's format, made at its first use.

    Needs the ``cryptography`` package, which is imported only then: pulling public models does not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def sign(self, data: bytes) -> str:
        """``<public key>:<signature>``, both in Base64.

        Blocks on the disk. Raises ``CannotSign``, and ``RegistryError`` for an unusable key.
        """
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
            from cryptography.hazmat.primitives.serialization import (
                Encoding,
                PublicFormat,
                load_ssh_private_key,
            )
        except ImportError:
            raise CannotSign(
                "signing in to a registry needs the package cryptography: pip install 'lhama[push]'"
            ) from None
        try:
            if not self._path.exists():
                self._make()
            key = load_ssh_private_key(self._path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise RegistryError(f"the key {self._path} cannot be read: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise RegistryError(f"the key {self._path} is not an Ed25519 key")
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        signature = base64.b64encode(key.sign(data))
        return f"{public.split()[1].decode()}:{signature.decode()}"

    def _make(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )

        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Whole or not at all, and never in another's place: two requests may be the first.
        fresh = self._path.with_name(f".{self._path.name}-{secrets.token_hex(8)}")
        fresh.touch(mode=0o600, exist_ok=False)
        try:
            fresh.write_bytes(private)
            os.link(fresh, self._path)
            self._path.with_suffix(".pub").write_bytes(public + b"\n")
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
