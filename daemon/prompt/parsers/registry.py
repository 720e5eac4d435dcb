"""Parsers by the names of Ollama's configs."""

from __future__ import annotations

from lhama.daemon.prompt.parsers.cohere import Cohere
from lhama.daemon.prompt.parsers.deepseek3 import Cogito, DeepSeek3
from lhama.daemon.prompt.parsers.functiongemma import FunctionGemma
from lhama.daemon.prompt.parsers.gemma4 import Gemma4, Gemma4NoThinking
from lhama.daemon.prompt.parsers.glimmer import Glimmer
from lhama.daemon.prompt.parsers.glm import Glm47, GlmOcr
from lhama.daemon.prompt.parsers.harmony import Harmony
from lhama.daemon.prompt.parsers.laguna import Laguna, Poolside
from lhama.daemon.prompt.parsers.lfm2 import Lfm2, Lfm2Thinking
from lhama.daemon.prompt.parsers.ministral import Ministral
from lhama.daemon.prompt.parsers.olmo3 import Olmo3, Olmo3Think
from lhama.daemon.prompt.parsers.parser import Parser
from lhama.daemon.prompt.parsers.passthrough import Passthrough
from lhama.daemon.prompt.parsers.qwen3 import Qwen3, Qwen3Thinking, Qwen3VL, Qwen3VLThinking
from lhama.daemon.prompt.parsers.qwen3coder import Nemotron3, Qwen3Coder, Qwen35

PARSERS: dict[str, type[Parser]] = {
    "cogito": Cogito,
    "cohere": Cohere,
    "deepseek3": DeepSeek3,
    "functiongemma": FunctionGemma,
    "gemma4": Gemma4,
    "gemma4-no-thinking": Gemma4NoThinking,
    "glimmer": Glimmer,
    "glm-4.7": Glm47,
    "glm-ocr": GlmOcr,
    "harmony": Harmony,
    "laguna": Laguna,
    "lfm2": Lfm2,
    "lfm2-thinking": Lfm2Thinking,
    "ministral": Ministral,
    "nemotron-3-nano": Nemotron3,
    "nemotron-3.5-nano": Nemotron3,
    "olmo3": Olmo3,
    "olmo3-think": Olmo3Think,
    "ornith": Qwen35,
    "passthrough": Passthrough,
    "poolside-v1": Poolside,
    "qwen3": Qwen3,
    "qwen3-coder": Qwen3Coder,
    "qwen3-thinking": Qwen3Thinking,
    "qwen3-vl-instruct": Qwen3VL,
    "qwen3-vl-thinking": Qwen3VLThinking,
    "qwen3.5": Qwen35,
}
"""A name that is not here is ignored, as by Ollama: the template then says how to parse."""
