"""What a learner is told to try in the live page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Try:
    """One thing to try.

    Attributes:
        kind: of the networks that it needs: points | pictures.
        do: which knobs to turn.
        see: what to look for, and why it is so.
    """

    kind: str
    title: str
    do: str
    see: str


TRIES = (
    Try(
        "points",
        "Where is it decided?",
        "Choose *DDIM* with η = 0 and drag the green ring slowly across the middle. Then set η to 1 and do it again.",
        "Without noise the end depends on the start alone: near starts have near ends, and somewhere the end tears away"
        " to another part of the shape. With η = 1 the way is jagged, and the start is all but forgotten.",
    ),
    Try(
        "points",
        "How few steps are enough?",
        "Let time run to its end, set the steps to 3, and go through the samplers. Then add steps one by one.",
        "Points that lie where no data are. DDIM stops short, between the parts of the shape; DPM-Solver++ bends with"
        " the way and needs fewer steps; DDPM needs many, because it adds noise that it then has to take away.",
    ),
    Try(
        "pictures",
        "A blur that makes up its mind",
        "Draw, pull the time back to the start, and walk forward step by step. Then draw with guidance 0, and with 4.",
        "The first guess is nearly the same blur for every picture, the mean of its class; strokes settle in the"
        " middle, edges at last. At guidance 0 the class is ignored; at 4 every picture is its class's cliché.",
    ),
)
