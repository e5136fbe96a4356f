"""Where and in which precision the work is done, and how often a training saves its state."""

from typing import Literal

from diffusion_ladder.foundation.section import NotNegativeFloat, Positive, Section


class Runtime(Section):
    """Where and in which precision the work is done."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "tf32", "bf16"]
    compile: Literal["never", "default", "reduce-overhead"]
    threads: Positive


class Checkpoints(Section):
    """How often a training saves its state."""

    seconds: NotNegativeFloat
