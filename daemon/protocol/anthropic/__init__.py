"""Anthropic's Messages, sans-I/O: requests into the core's, deltas into events and bodies."""
