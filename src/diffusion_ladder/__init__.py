"""Diffusion models from points of the plane to conditional faces, one rung at a time."""

from diffusion_ladder.surroundings import start_clean

start_clean()
