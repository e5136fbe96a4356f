"""Diffusion Ladder: a reproducible pipeline from 2D points to conditional faces."""
