"""Output formats of model families, by the names that a model's config calls ``parser``.

A parser is a state machine that text is fed to as it is generated; it answers with what that
settled of content, thinking and tool calls. What it answers in all does not depend on how the text
was cut. Where Ollama's parsers depend on the cut, what they do with one token at a time is the
model; where they lose text that is nobody's tag, it is kept.
"""
