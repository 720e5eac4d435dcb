"""For tests of plugins: a conformance suite for backends, and a few pytest fixtures.

::

    # test_conformance.py
    import pytest
    from lhama.plugins.testing import BackendConformance, Subject

    @pytest.fixture(scope="module")
    def subject() -> Subject:
        return Subject(ThingBackend(), ModelFiles("small", "/models/small.gguf"))

    class TestThing(BackendConformance):
        pass

The fixtures are there with ``pytest_plugins = ["lhama.plugins.testing"]`` in ``conftest.py``. The
module is no ``pytest11`` entry point on purpose: pytest imports those at every start, in every
project whose environment happens to hold lhama.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{name}"
        for name in ("contract", "driver", "embedding", "life", "masks", "media", "overlap")
    ),
    *(f"{__name__}.{name}" for name in ("cache", "ends", "sampling", "steps", "textual", "tokens")),
)

from lhama.plugins.testing.conformance import BackendConformance  # noqa: E402
from lhama.plugins.testing.fixtures import lhama_daemon, lhama_registry  # noqa: E402
from lhama.plugins.testing.subject import Subject  # noqa: E402
from lhama.plugins.testing.textual import TextConformance, TextSubject  # noqa: E402

__all__ = [
    "BackendConformance",
    "Subject",
    "TextConformance",
    "TextSubject",
    "lhama_daemon",
    "lhama_registry",
]
