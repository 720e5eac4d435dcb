"""Work on model files by plugins' tools, each job in a child process of its own.

Modules: ``worker`` (the daemon's side), ``jobs`` (what the two say), ``__main__`` (the child).
"""

from lhama.daemon.worker.jobs import AdapterConversion, Conversion, Quantization
from lhama.daemon.worker.worker import ToolFailed, Worker

__all__ = ["AdapterConversion", "Conversion", "Quantization", "ToolFailed", "Worker"]
