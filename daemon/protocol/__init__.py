"""Ollama's wire, without I/O: requests in, replies out, to the byte."""
