"""The overlapped order against its twin on a card that sleeps before each step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lhama_testing_line import Line
from lhama_testing_traps import ON_CARD, SAMPLINGS, Script, engine

CYCLES = 3_000_000
"""About 2 ms: longer than preparing a step takes."""

found = []
for order, slow in (("off", False), ("device", True)):
    line = Line(order, engine=engine(ON_CARD, Path(sys.argv[1]), slots=4))  # type: ignore[arg-type]
    compute = line.engine.compute_current

    def computing(prepared: Any, tokens: Any, compute: Any = compute, slow: bool = slow) -> Any:
        if slow:
            torch.cuda._sleep(CYCLES)
        return compute(prepared, tokens)

    line.engine.compute_current = computing  # type: ignore[method-assign]
    script = Script(line)
    answers = [
        script.submit(1, n, "same size", num_predict=60, sampling=sampling, logprobs=1)
        for n, sampling in enumerate(SAMPLINGS)
    ]
    script.run()
    line.close()
    found.append([[item.token for item in answer.logprobs] for answer in answers])
assert found[0] == found[1]
