"""lhama-openai keeps the contract for text engines, with another lhama on SmolLM2 behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lhama_openai.backend import OpenAIBackend
from lhama_openai.command import write
from lhama_testing_daemon import free_port, running

from lhama.plugins.backend import ModelFiles
from lhama.plugins.testing import TextConformance, TextSubject

TEMPLATE = (
    "{{ range .Tools }}{{ . }}{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}"
    '{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}<|im_end|>\n{{ end }}'
    "<|im_start|>assistant\n"
)
"""SmolLM2's own, and tools."""


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[TextSubject]:
    folder = tmp_path_factory.mktemp("behind")

    def model(server: str) -> ModelFiles:
        write(folder / server, server, "smollm2", 2048)
        return ModelFiles("smollm2", str(folder / server))

    with running(folder / "models") as peer, pytest.MonkeyPatch.context() as patch:
        peer.create("smollm2", smollm2, template=TEMPLATE)
        patch.setenv("LHAMA_OPENAI_PEER_URL", f"{peer.url}/v1")
        patch.setenv("LHAMA_OPENAI_DEAD_URL", f"http://127.0.0.1:{free_port()}/v1")
        yield TextSubject(
            OpenAIBackend(),
            model("peer"),
            tools=True,
            constrained=True,
            unreachable=model("dead"),
            registered=False,
        )


class TestOpenAI(TextConformance):
    pass
