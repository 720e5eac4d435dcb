"""Serves models of other OpenAI-compatible servers under local names."""

from collections.abc import Callable

from lhama.plugins import hookimpl
from lhama.plugins.backend import Backend


@hookimpl
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    from lhama_openai.backend import OpenAIBackend

    register(OpenAIBackend())
