"""The contract between lhama and its plugins. Standard library and pluggy only.

A plugin needs two imports: ``from lhama.plugins import hookimpl`` and ``lhama.plugins.backend``.
"""

from lhama.plugins.hookspecs import hookimpl

__all__ = ["hookimpl"]
