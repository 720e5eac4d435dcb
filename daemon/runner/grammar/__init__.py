"""Structured output: from ``format`` to the tokens that may come next. llguidance lives here."""

from lhama.daemon.runner.grammar.compilers import Compilers
from lhama.daemon.runner.grammar.maker import Grammars
from lhama.daemon.runner.grammar.masks import Grammar, GrammarError, Masks

__all__ = ["Compilers", "Grammar", "GrammarError", "Grammars", "Masks"]
