"""What the paper published (Kobayashi et al. 2020, arXiv:2006.06156), by the name of our counterpart."""

from __future__ import annotations

# Table 1, 22 whole images: PSNR, SSIM (range 2), MI, SMI.
TABLE_1: dict[str, tuple[str, tuple[float, float, float, float]]] = {
    "blurred": ("blurry", (23.1, 0.77, 0.17, 0.38)),
    "input": ("blurry & noisy (input)", (17.8, 0.29, 0.07, 0.18)),
    "tv-conjugate-gradient-paper": ("Conjugate Gradient TV", (19.4, 0.41, 0.09, 0.21)),
    "tv-chambolle-pock-paper": ("Chambolle-Pock TV", (18.7, 0.40, 0.07, 0.23)),
    "richardson-lucy-5": ("Lucy-Richardson n = 5", (22.2, 0.59, 0.12, 0.25)),
    "richardson-lucy-10": ("Lucy-Richardson n = 10", (21.1, 0.52, 0.10, 0.25)),
    "richardson-lucy-20": ("Lucy-Richardson n = 20", (18.5, 0.38, 0.08, 0.19)),
    "ssi-unmasked": ("SSI UNet, no masking", (17.7, 0.38, 0.07, 0.14)),
    "ssi-paper": ("SSI UNet", (22.5, 0.61, 0.14, 0.27)),
}

# Table 2: seconds of training, of inference. TV on a CPU, the rest on an RTX TITAN.
TABLE_2: dict[str, tuple[float, float]] = {
    "tv-conjugate-gradient-paper": (0.0, 95.74),
    "tv-chambolle-pock-paper": (0.0, 306.60),
    "richardson-lucy-5": (0.0, 0.23),
    "richardson-lucy-10": (0.0, 0.10),
    "richardson-lucy-20": (0.0, 0.17),
    "ssi-unmasked": (222.67, 0.03),
    "ssi-paper": (249.01, 0.03),
}
