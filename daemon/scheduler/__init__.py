"""Which runner serves a request: load, share, evict, keep alive. One loop owns all of it."""

from lhama.daemon.scheduler.lease import Lease
from lhama.daemon.scheduler.loop import Scheduler
from lhama.daemon.scheduler.placement import LoadRequest
from lhama.daemon.scheduler.replies import Sink
from lhama.daemon.scheduler.table import LoadedModel, Observation

__all__ = ["Lease", "LoadRequest", "LoadedModel", "Observation", "Scheduler", "Sink"]
