"""llama.cpp's own HTTP server, from the package xllamacpp: prints its address and serves."""

from __future__ import annotations

import sys
import threading

import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx, parameters.n_parallel = 2048, 2
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
parameters.warmup = False
server = xllamacpp.Server(parameters)
print("listening", server.listening_address, flush=True)
threading.Event().wait()
