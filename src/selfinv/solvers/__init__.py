"""The solver contract, its loop, and the classical solvers."""

from selfinv.solvers.base import Phase, Progress, Solver, State, Status, iterate, run
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener

__all__ = [
    "ChambollePock",
    "ConjugateGradient",
    "Phase",
    "Progress",
    "RichardsonLucy",
    "Solver",
    "State",
    "Status",
    "Wiener",
    "iterate",
    "run",
]
