"""The servers that ``peer`` compares with lhama, and how each is asked."""

from __future__ import annotations

import json

from lhama.daemon.cli.load import Dialect


class LlamaServer(Dialect):
    path, token, end = "/completion", b'"stop":false', b'"stop":true'

    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        return json.dumps(
            {
                **options,
                "prompt": prompt,
                "n_predict": tokens,
                "stream": True,
                "cache_prompt": True,
                "samplers": ["top_k", "top_p", "temperature"],
            }
        ).encode()


class OpenAI(Dialect):
    path, token, end = "/v1/completions", b'"text":', b"[DONE]"

    def body(self, model: str, prompt: str, tokens: int, options: dict[str, float]) -> bytes:
        known = {k: v for k, v in options.items() if k in ("temperature", "top_p", "seed")}
        return json.dumps(
            {**known, "model": model, "prompt": prompt, "max_tokens": tokens, "stream": True}
        ).encode()


DIALECTS = {"ollama": Dialect(), "llamacpp": LlamaServer(), "openai": OpenAI()}
