"""The conformance suite: everything a backend promises, one named check for each promise."""

from __future__ import annotations

from lhama.plugins.testing.cache import Cache
from lhama.plugins.testing.contract import Contract
from lhama.plugins.testing.embedding import Embeddings
from lhama.plugins.testing.ends import Ends
from lhama.plugins.testing.life import Life
from lhama.plugins.testing.masks import Masks
from lhama.plugins.testing.media import Pictures
from lhama.plugins.testing.overlap import Overlap
from lhama.plugins.testing.sampling import Draws
from lhama.plugins.testing.steps import Steps
from lhama.plugins.testing.tokens import Tokens


class BackendConformance(
    Contract, Tokens, Steps, Overlap, Cache, Draws, Masks, Ends, Embeddings, Pictures, Life
):
    """Subclass it as ``Test…`` beside a fixture ``subject`` (scope ``module`` or wider) that
    returns a ``Subject``. What an engine or the subject does not offer is skipped, with a reason."""
