"""Writes what llama.cpp says to a few prompts, one of them alone and the rest together."""

from __future__ import annotations

import sys
from pathlib import Path

from lhama_testing_line import Line
from lhama_testing_traps import SAMPLINGS, engine

line = Line("host", engine=engine("llamacpp", Path(sys.argv[1]), slots=4))
first = line.submit(0, "alone", num_predict=40, logprobs=0)
assert first.ended.wait(60)
answers = [
    line.submit(n, f"prompt {n} " * n, num_predict=20 + n, sampling=SAMPLINGS[n % 4], logprobs=0)
    for n in range(1, 9)
]
assert all(answer.ended.wait(60) for answer in answers)
line.close()
for answer in (first, *answers):
    print([item.token for item in answer.logprobs])
