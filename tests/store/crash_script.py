"""Run by test_durability: dies before its N-th step on the disk, for every N there is.

Each step runs in a fork of this process, which starts no threads itself. Prints how many there are.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
from pathlib import Path

from lhama_testing_store import make

from lhama.daemon.store import Digest, ModelName, Store, files
from lhama.daemon.store.partial import Partial

BLOB = random.Random(1).randbytes(4000)
PART = 1000
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.link"}


def change(root: Path, kind: str) -> None:
    with Store(root) as store:
        if kind == "create":
            make(store, model="new/name:tag", from_="base", system="new", parameters={"seed": 2})
        elif kind == "replace":
            make(store, model="base", from_="base", system="new", parameters={"seed": 2})
        elif kind == "download":
            download(store)
        elif kind == "copy":
            store.copy(ModelName.parse("base"), ModelName.parse("new/name:tag"))
        else:
            store.delete(ModelName.parse("base"))


def download(store: Store) -> None:
    """What a pull does to the disk for one blob: halves of its parts, twice recorded."""
    partial = Partial(store.blobs, Digest.of(BLOB), len(BLOB), smallest_part=PART)
    partial.open()
    for _ in range(2):
        for part in partial.parts:
            partial.write(part, BLOB[part.position : part.position + part.size // 2])
        partial.checkpoint()
    assert partial.hash(threading.Event()) == Digest.of(BLOB)
    partial.publish()
    partial.close()


def die_at(step: int, root: Path) -> None:
    """Count writing steps below ``root`` from here on; the process ends before number ``step``."""
    left = [step]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        path = arguments[0] if arguments else ""
        if event not in STEPS or not str(path).startswith(str(root)):
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        count()

    sync = files.sync

    def counted_sync(fd: int) -> None:
        count()
        sync(fd)

    sys.addaudithook(hook)
    files.sync = counted_sync


def main(kind: str, template: Path, work: Path) -> None:
    for step in range(500):
        root = work / f"{kind}-{step}"
        shutil.copytree(template, root)
        child = os.fork()
        if not child:
            die_at(step, root)
            change(root, kind)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            print(step)
            return
    raise SystemExit("more steps than can be")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
