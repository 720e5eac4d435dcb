"""Values and tools as the Gemma models write them: bare keys, strings between a mark of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lhama.daemon.prompt.gotext import sprint, whole
from lhama.daemon.prompt.tools import Tool
from lhama.daemon.wire.messages import ToolCall


@dataclass(frozen=True, slots=True)
class Notation:
    """One model's spelling."""

    quote: str
    """Stands before and after a string."""
    null: str

    def string(self, text: object) -> str:
        return f"{self.quote}{text}{self.quote}"

    def strings(self, texts: Sequence[object]) -> str:
        return "[" + ",".join(map(self.string, texts)) + "]"

    def value(self, value: Any, *, quoted_keys: bool = False) -> str:
        """Any JSON value, keys sorted."""
        if isinstance(value, str):
            return self.string(value)
        if value is None:
            return self.null
        if isinstance(value, Mapping):
            return "{" + self.members(value, quoted_keys=quoted_keys) + "}"
        if isinstance(value, list):
            items = (self.value(item, quoted_keys=quoted_keys) for item in value)
            return "[" + ",".join(items) + "]"
        if isinstance(value, bool):
            return sprint(value)
        return whole(float(value)) or sprint(value)

    def members(self, value: Mapping[str, Any], *, quoted_keys: bool = False) -> str:
        return ",".join(
            f"{self.string(key) if quoted_keys else key}:"
            f"{self.value(value[key], quoted_keys=quoted_keys)}"
            for key in sorted(value)
        )

    def declaration(self, tool: Tool, properties: str) -> str:
        """A tool's; ``properties`` are those of its parameters, if there are any."""
        parts = [f"description:{self.string(tool.description)}"]
        kind = tool.parameters["type"]
        if tool.parameters["properties"] is not None or kind:
            schema = [f"properties:{{{properties}}}"] if tool.properties else []
            if tool.required:
                schema.append(f"required:{self.strings(tool.required)}")
            if kind:
                schema.append(f"type:{self.string(kind.upper())}")
            parts.append(f"parameters:{{{','.join(schema)}}}")
        return f"declaration:{tool.name}{{{','.join(parts)}}}"

    def call(self, call: ToolCall) -> str:
        return f"call:{call.name}{{{self.members(call.arguments)}}}"
