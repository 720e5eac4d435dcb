"""Chat formats that models were trained on, as Go templates, with the marks that tell them apart.

Formats are facts published with their models; ``chatml`` is to the letter what a real Ollama
writes (golden ``show_basic``).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """One chat format.

    A Jinja text has this format if it holds all ``marks``, in any quoting, and none of ``not_``.
    """

    name: str
    marks: tuple[str, ...]
    template: str
    stop: tuple[str, ...]
    not_: tuple[str, ...] = ()


_CHATML = """\
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""

_LLAMA3 = """\
{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>

"""

_LLAMA2 = """\
[INST] {{ if .System }}<<SYS>>
{{ .System }}
<</SYS>>

{{ end }}{{ .Prompt }} [/INST] {{ .Response }}</s><s>"""

_MISTRAL = """\
[INST] {{ if .System }}{{ .System }}

{{ end }}{{ .Prompt }} [/INST] {{ .Response }}</s>"""

_GEMMA = """\
<start_of_turn>user
{{ if .System }}{{ .System }}

{{ end }}{{ .Prompt }}<end_of_turn>
<start_of_turn>model
{{ .Response }}<end_of_turn>
"""

_PHI3 = """\
{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}<|end|>
{{ end }}<|assistant|>
"""

_ZEPHYR = """\
{{- range .Messages }}<|{{ .Role }}|>
{{ .Content }}</s>
{{ end }}<|assistant|>
"""

_ALPACA = """\
{{- if .System }}{{ .System }}

{{ end }}{{ if .Prompt }}### Instruction:
{{ .Prompt }}

{{ end }}### Response:
{{ .Response }}

"""

_SOLAR = """\
{{- if .System }}### System:
{{ .System }}

{{ end }}{{ if .Prompt }}### User:
{{ .Prompt }}

{{ end }}### Assistant:
{{ .Response }}</s>

"""

_OPENCHAT = """\
{{- if .System }}GPT4 Correct System: {{ .System }}<|end_of_turn|>{{ end }}\
{{- if .Prompt }}GPT4 Correct User: {{ .Prompt }}<|end_of_turn|>{{ end }}\
GPT4 Correct Assistant: {{ .Response }}<|end_of_turn|>"""

_COMMAND_R = """\
{{- range .Messages }}<|START_OF_TURN_TOKEN|>\
{{- if eq .Role "system" }}<|SYSTEM_TOKEN|>\
{{- else if eq .Role "user" }}<|USER_TOKEN|>\
{{- else }}<|CHATBOT_TOKEN|>{{ end }}{{ .Content }}<|END_OF_TURN_TOKEN|>\
{{- end }}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"""

_GRANITE = """\
{{- if .System }}System:
{{ .System }}

{{ end }}{{ if .Prompt }}Question:
{{ .Prompt }}

{{ end }}Answer:
{{ .Response }}

"""

_FALCON = """\
{{- if .System }}System: {{ .System }}
{{ end }}{{ if .Prompt }}User: {{ .Prompt }}
{{ end }}Falcon: {{ .Response }}
"""

_ALFRED = """\
{{- if .System }}<start_system>{{ .System }}<end_message>{{ end }}\
{{- if .Prompt }}<start_user>{{ .Prompt }}<end_message>{{ end }}\
<start_assistant>{{ .Response }}<end_message>"""

_CHATQA = """\
{{- if .System }}System: {{ .System }}

{{ end }}{{ if .Prompt }}User: {{ .Prompt }}

{{ end }}Assistant: {{ .Response }}

"""

_CODELLAMA_70B = """\
{{- range .Messages }}Source: {{ .Role }}
{{ if eq .Role "assistant" }}Destination: user
{{ end }}
 {{ .Content }} <step> {{ end }}Source: assistant
Destination: user

 """

_MAGICODER = """\
{{- if .System }}{{ .System }}

{{ end }}{{ if .Prompt }}@@ Instruction
{{ .Prompt }}

{{ end }}@@ Response
{{ .Response }}

"""

_STARCODER2 = """\
{{- if .System }}{{ .System }}

{{ end }}{{ if .Prompt }}### Instruction
{{ .Prompt }}

{{ end }}### Response
{{ .Response }}<|endoftext|>"""

FORMATS: tuple[Format, ...] = (
    Format("chatml", ("<|im_start|>", "<|im_end|>"), _CHATML, ("<|im_start|>", "<|im_end|>")),
    Format(
        "llama3-instruct",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        _LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Format(
        "llama2-chat",
        ("[INST]", "<<SYS>>"),
        _LLAMA2,
        ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    Format("mistral-instruct", ("[INST]", "[/INST]"), _MISTRAL, ("[INST]", "[/INST]")),
    Format(
        "gemma3-instruct",
        ("<start_of_turn>", "<end_of_turn>", "<start_of_image>"),
        _GEMMA,
        ("<end_of_turn>",),
    ),
    Format(
        "gemma-instruct",
        ("<start_of_turn>", "<end_of_turn>"),
        _GEMMA,
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    Format(
        "phi-3",
        ("<|assistant|>", "<|end|>"),
        _PHI3,
        ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    ),
    Format(
        "zephyr",
        ("<|user|>", "<|assistant|>"),
        _ZEPHYR,
        ("<|system|>", "<|user|>", "<|assistant|>", "</s>"),
        not_=("<|end|>", "<|endoftext|>"),
    ),
    Format("openchat", ("GPT4 Correct",), _OPENCHAT, ("<|end_of_turn|>",)),
    Format(
        "command-r",
        ("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        _COMMAND_R,
        ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    Format("alfred", ("<start_user>", "<end_message>"), _ALFRED, ("<start_user>", "<end_message>")),
    Format("codellama-70b-instruct", ("Source: ", "<step>"), _CODELLAMA_70B, ("Source:", "<step>")),
    Format("magicoder", ("@@ Instruction", "@@ Response"), _MAGICODER, ("@@ Instruction",)),
    Format("solar-instruct", ("### User:", "### Assistant:"), _SOLAR, ("### User:", "</s>")),
    Format("alpaca", ("### Instruction:", "### Response:"), _ALPACA, ("### Instruction:",)),
    Format(
        "starcoder2-instruct",
        ("### Instruction", "### Response", "<|endoftext|>"),
        _STARCODER2,
        ("### Instruction", "<|endoftext|>"),
    ),
    Format("granite-instruct", ("Question:", "Answer:"), _GRANITE, ("System:", "Question:")),
    Format("falcon-instruct", ("User:", "Falcon:"), _FALCON, ("User:", "Falcon:")),
    Format("chatqa", ("User:", "Assistant:"), _CHATQA, ("System:", "User:")),
)
"""First match wins: what is more special stands before what it contains."""
