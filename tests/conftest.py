"""The suite's problems are small: one thread each is fastest, and does not suffer on a busy machine."""

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def interrupt_training(monkeypatch):
    """A call has the next training interrupted by a signal, as its third step is about to be taken."""
    from selfinv.learning.solver import SSI

    step = SSI.step

    def patch(number=signal.SIGINT):
        left = [3]

        def interrupted(self, state):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), number)
            return step(self, state)

        monkeypatch.setattr(SSI, "step", interrupted)

    return patch
