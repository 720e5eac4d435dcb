"""The ``lhama`` command: a thin client of the HTTP API, and the way to start the daemon.

Imported at every call, so nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lhama.daemon.errors import LhamaError

_OPTIONAL_VALUES = {"--no-plugins": "*", "--think": "true", "--truncate": "true"}
"""Options that may stand without a value, and the value they have then."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``lhama`` command; exits with 0, 1 (an error, shown) or 2 (usage)."""
    from lhama.daemon.cli.commands import app

    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    spelled_out = [f"{a}={_OPTIONAL_VALUES[a]}" if a in _OPTIONAL_VALUES else a for a in given]
    try:
        app(spelled_out, prog_name="lhama")
    except LhamaError as error:
        sys.exit(f"Error: {error.message}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"Error: {error.filename}: {error.strerror}")  # a file the user named
    except KeyboardInterrupt:
        sys.exit(130)
