"""The hooks a plugin may implement. Hooks register things at start-up; no hook runs per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lhama.plugins.backend import Backend
    from lhama.plugins.tools import Converter, Quantizer

PROJECT = "lhama"
"""Name of the hook markers and of the entry-point group alike."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's implementation of a hook."""


class LhamaDeprecation(DeprecationWarning):
    """A hook, or an argument of one, that will go: given to ``hookspec(warn_on_impl=…)`` or
    ``warn_on_impl_args`` a release before it does. Plugins that use it are shown with the text."""


@hookspec
def lhama_register_backends(register: Callable[[Backend], None]) -> None:
    """Register one or more backends by calling ``register`` with each.

    Called once in the daemon and once in every runner process, so it must be cheap and import
    nothing native: ``Backend.load`` is the place for that. What a hook registers counts only if
    the hook returns: a plugin that raises half-way contributes nothing.

    Example::

        from lhama.plugins import hookimpl

        @hookimpl
        def lhama_register_backends(register):
            register(MyBackend())
    """


@hookspec
def lhama_register_quantizers(register: Callable[[Quantizer], None]) -> None:
    """Register one or more quantisers, under the rules of ``lhama_register_backends``.

    Example::

        @hookimpl
        def lhama_register_quantizers(register):
            register(MyQuantizer())
    """


@hookspec
def lhama_register_converters(register: Callable[[Converter], None]) -> None:
    """Register one or more converters, under the rules of ``lhama_register_backends``.

    Example::

        @hookimpl
        def lhama_register_converters(register):
            register(MyConverter())
    """
