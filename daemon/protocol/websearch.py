"""The web search that OpenAI's and Anthropic's servers run themselves.

A model sees it as a function. When it calls it, Ollama searches through ollama.com; this daemon
calls nobody, and answers as Ollama does with its cloud switched off.
"""

from __future__ import annotations

from lhama.daemon.protocol.types import (
    Tool,
    ToolFunction,
    ToolFunctionParameters,
    ToolProperty,
)

NAME = "web_search"
UNAVAILABLE = "ollama cloud is disabled: web search is unavailable"

TOOL = Tool(
    type="function",
    function=ToolFunction(
        name=NAME,
        description="Look something up on the web.",
        parameters=ToolFunctionParameters(
            type="object",
            required=["query"],
            properties={"query": ToolProperty(type=["string"], description="What to look for.")},
        ),
    ),
)
