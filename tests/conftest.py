"""The suite's problems are small: one thread each is fastest, and does not suffer on a busy machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
