"""``python -m selfinv.cli``."""

from selfinv.cli import main

main()
