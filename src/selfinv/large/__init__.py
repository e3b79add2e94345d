"""Images larger than memory, and many of them: train on pieces, restore tile by tile, go on after a kill."""

from selfinv.large.engine import Outcome, check_scheduler
from selfinv.large.front import (
    LargeResult,
    apply,
    check_means,
    classical,
    plan_for,
    train,
)
from selfinv.large.journal import fingerprint
from selfinv.large.memory import parse_memory
from selfinv.large.places import Places
from selfinv.large.restorers import ClassicalRestorer, NetworkRestorer
from selfinv.large.sample import Piece, choose_pieces
from selfinv.large.tiles import Plan, Tile

__all__ = [
    "ClassicalRestorer",
    "LargeResult",
    "NetworkRestorer",
    "Outcome",
    "Piece",
    "Places",
    "Plan",
    "Tile",
    "apply",
    "check_means",
    "check_scheduler",
    "choose_pieces",
    "classical",
    "fingerprint",
    "parse_memory",
    "plan_for",
    "train",
]
