"""Prompt formats of model families, by the names that a model's config calls ``renderer``.

A family's file holds one function that writes a conversation as the family's own chat template
does. Formats, default texts and white space are facts about the models; where Ollama's server and
the published template differ, Ollama's text stands, since ``_debug_render_only`` shows it.
"""
