"""Sizes of a rung's figures."""

from diffusion_ladder.foundation.section import Positive, Section


class Figures(Section):
    """Sizes of a rung's figures."""

    forward_every: Positive
    panels: Positive
    samples: Positive
    frames_per_second: Positive
