"""Lines typed at the prompt, with editing and a memory of earlier conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LINES = 1000


@contextmanager
def remembered(wanted: Callable[[], bool]) -> Iterator[None]:
    """Line editing for ``input()``; what is typed is kept if ``wanted`` still says so at the end.

    Without the readline library there is neither editing nor history, and all else works.
    """
    try:
        import readline
    except ImportError:
        yield
        return
    from platformdirs import user_state_path

    path = user_state_path("lhama", appauthor=False) / "history"
    # A history that cannot be read or written is no reason not to talk.
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(LINES)
    try:
        yield
    finally:
        if wanted():
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(path)
                path.chmod(0o600)
