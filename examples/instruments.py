"""Every kind of measurement, restored: writes instruments.png (docs/operators.md shows it).

python examples/instruments.py [--size 128] [-o instruments.png]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from skimage.data import camera
from skimage.transform import resize

import selfinv
from selfinv.benchmark.instruments import OPERATORS, textbook_inverse
from selfinv.metrics import psnr

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--size", type=int, default=128)
parser.add_argument("-o", "--output", default="instruments.png")
arguments = parser.parse_args()

n = arguments.size
truth = resize(camera()[:, 60:440] / 255.0, (n, n), anti_aliasing=True).astype(np.float32)
names = [name for name in OPERATORS if name not in ("identity", "two views", "coarser 1.5")]
figure = Figure(figsize=(2.1 * len(names), 4.6), layout="constrained")
grid = figure.subplots(2, len(names))
for column, name in enumerate(names):
    A = OPERATORS[name](truth.shape).float()
    margins = [
        n for v, size in zip(A.view[::-1], A.in_shape[::-1], strict=True) for n in (v.start, size - v.stop)
    ]
    x = torch.nn.functional.pad(torch.from_numpy(truth)[None, None], margins, mode="reflect")
    y = A(x)[0, 0].numpy()
    y = y + np.random.default_rng(0).normal(0.0, 0.05 * y.std(), y.shape).astype(np.float32)
    on_grid = A.field_of_view is not None
    before = y if on_grid else textbook_inverse(A, y)
    after = selfinv.restore(y, operator=A).image
    for row, (image, words) in enumerate(
        ((before, "measured" if on_grid else "textbook inverse"), (after, "ssi"))
    ):
        axes = grid[row, column]
        axes.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_axis_off()
        title = f"{words}, {psnr(truth, np.clip(image, 0, 1)):.1f} dB"
        axes.set_title(f"{name}\n{title}" if row == 0 else title, fontsize=8)
    print(f"{name}: {psnr(truth, before):.2f} -> {psnr(truth, after):.2f} dB", flush=True)
figure.savefig(arguments.output, dpi=80)
