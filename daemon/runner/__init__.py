"""The runner: one process per loaded model.

``main`` loads the engine, ``service`` answers the wire, ``batcher`` decides steps, ``pipeline``
runs them with the two halves overlapped.
"""
