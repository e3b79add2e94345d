"""The learned solver and its parts."""

from selfinv.learning.inverter import Head, Inverter
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.masks import ComplementaryPairs, Decaying, Grid, RandomPixels
from selfinv.learning.presets import ssi, ssi_paper, ssi_unmasked
from selfinv.learning.settings import Hiding, Training
from selfinv.learning.solver import SSI
from selfinv.learning.unet import UNet, UNetSettings
from selfinv.learning.windows import Windows

__all__ = [
    "SSI",
    "ComplementaryPairs",
    "Decaying",
    "Grid",
    "Head",
    "Hiding",
    "Inverter",
    "MaskedLoss",
    "RandomPixels",
    "Training",
    "UNet",
    "UNetSettings",
    "Windows",
    "ssi",
    "ssi_paper",
    "ssi_unmasked",
]
