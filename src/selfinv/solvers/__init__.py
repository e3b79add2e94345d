"""The solver contract and its loop."""

from selfinv.solvers.base import Progress, Solver, State, Status, iterate, run

__all__ = ["Progress", "Solver", "State", "Status", "iterate", "run"]
