"""OpenAI's protocol, sans-I/O: requests into the core's, deltas into its events and bodies.

What is honoured, ignored and refused is what Ollama does: its middleware rewrites requests into
native ones and native answers back, and clients have come to rely on the result.
"""
