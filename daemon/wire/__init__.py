"""Daemon ⇄ runner: message types and their framing. Types and bytes only, no I/O."""
