"""Messages to text to tokens, and generated text back to content, thinking and tool calls.

Sans-I/O. Rendering and parsing run in the runner, because a template is somebody else's program;
the scans (``capabilities``, ``autodetect``, ``select``) only read text and serve the daemon.
"""
