"""Floor 3: image files in and out (TIFF, ImageJ, OME-TIFF, PNG, NPY, FITS), with axes and voxel sizes.

Every mistake in a file or a path is an `InputError` of one line; a file is written whole or not at all.

Examples
--------
>>> import tempfile, pathlib, numpy as np
>>> with tempfile.TemporaryDirectory() as folder:
...     path = pathlib.Path(folder) / "volume.tif"
...     write(path, Image(np.ones((4, 8, 9), np.float32), "zyx", {"z": 0.3, "y": 0.1, "x": 0.1}))
...     image = read(path)
>>> image.axes, image.data.shape, image.voxel_size
('zyx', (4, 8, 9), {'z': 0.3, 'y': 0.1, 'x': 0.1})
"""

from selfinv.io.casting import cast, count_outside
from selfinv.io.files import check_output, read, write
from selfinv.io.image import Image

__all__ = ["Image", "cast", "check_output", "count_outside", "read", "write"]
