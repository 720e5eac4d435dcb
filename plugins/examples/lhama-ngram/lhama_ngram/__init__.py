"""The plugin: what lhama imports in every process, at every start. Light, and nothing native."""

from collections.abc import Callable

from lhama.plugins import hookimpl
from lhama.plugins.backend import Backend


@hookimpl
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    from lhama_ngram.backend import NgramBackend

    register(NgramBackend())
