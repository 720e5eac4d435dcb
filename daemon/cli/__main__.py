"""``python -m lhama.daemon.cli``."""

from lhama.daemon.cli import main

main()
