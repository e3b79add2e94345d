"""Noise-tolerant self-supervised inversion of one noisy, indirectly measured image."""

__version__ = "0.1.0"
