"""Cases in processes of their own: as many at once as there are cores for, and none missed if one dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from selfinv.benchmark.cases import Case
from selfinv.benchmark.execute import FAILED, execute
from selfinv.benchmark.store import Store
from selfinv.types import InputError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Row = dict[str, Any]


def run_cases(
    cases: Sequence[Case], store: Store, jobs: int, threads: int, done: Callable[[Case, Row], None]
) -> None:
    """Execute every case in one of ``jobs`` processes with ``threads`` threads each; ``done`` hears of each.

    A process that dies (for lack of memory, say) takes its case with it, which is kept as failed; another
    takes its place.

    Raises
    ------
    InputError
        If a result cannot be written; what was written before stays.
    """
    waiting = list(reversed(cases))
    workers: list[_Worker] = []
    try:
        with _environment(threads):
            workers.extend(_Worker(store, jobs, threads) for _ in range(min(jobs, len(cases))))
            for worker in workers:
                worker.give(waiting.pop())
            while any(w.case is not None for w in workers):
                busy = [w for w in workers if w.case is not None]
                ready = wait([w.connection for w in busy] + [w.process.sentinel for w in busy])
                for worker in busy:
                    if worker.connection not in ready and worker.process.sentinel not in ready:
                        continue
                    case = worker.case
                    assert case is not None
                    row = worker.take()
                    if row is None:  # it died
                        row = worker.obituary(case)
                        store.keep(case, row, None)
                        place = workers.index(worker)
                        if waiting:
                            workers[place] = worker = _Worker(store, jobs, threads)
                        else:
                            del workers[place]
                    elif "unwritable" in row:
                        raise InputError(row["unwritable"])
                    done(case, row)
                    if waiting:
                        worker.give(waiting.pop())
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process and the case it works on."""

    def __init__(self, store: Store, jobs: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection, theirs = context.Pipe()
        arguments = (theirs, str(store.folder), jobs, threads)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.case: Case | None = None
        self.started = time.monotonic()

    def give(self, case: Case) -> None:
        self.case, self.started = case, time.monotonic()
        with contextlib.suppress(OSError):  # dead already: its sentinel will tell
            self.connection.send(case)

    def take(self) -> Row | None:
        """The row it has sent, None if it died without."""
        try:
            row: Row = self.connection.recv()
        except (EOFError, OSError):
            return None
        self.case = None
        return row

    def obituary(self, case: Case) -> Row:
        self.process.join(5)
        code = self.process.exitcode
        how = f"exit status {code}"
        if code is not None and code < 0:
            how = f"signal {signal.Signals(-code).name}"
            how += ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
        self.end()
        return {
            **case.labels(),
            "status": FAILED,
            "error": f"its process ended by {how} after {time.monotonic() - self.started:.0f} s",
        }

    def end(self) -> None:
        self.connection.close()
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _work(connection: Connection, folder: str, jobs: int, threads: int) -> None:
    """What a process does: take a case, execute it, keep the result, tell, until there is no more."""
    from pathlib import Path

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    store = Store(Path(folder))
    while True:
        try:
            case = connection.recv()
        except (EOFError, OSError):
            return
        row, image = execute(case)
        row["jobs"] = jobs
        try:
            store.keep(case, row, image)
        except InputError as error:
            row = {"unwritable": str(error)}
        with contextlib.suppress(OSError):
            connection.send(row)


def _die_with_parent() -> None:
    """A killed parent must not leave children that go on for hours beside those of the run's next start."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """For the processes started meanwhile: so many threads in every library that has its own."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
