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
        " to another part of the shape. With η = 1 the way is jagged, and the start is all but forgotten: the noise on"
        " the way decides.",
    ),
    Try(
        "points",
        "How few steps are enough?",
        "Let time run to its end, set the steps to 6, and go through the samplers. Then add steps one by one.",
        "Points that lie where no data are. With few steps DPM-Solver++ leaves fewer of them than DDIM, and Heun the"
        " fewest; but Heun asks the network almost twice as often, as the line below the knobs tells. With many they"
        " hardly differ.",
    ),
    Try(
        "pictures",
        "A blur that makes up its mind",
        "Draw, pull the time back to the start, and walk forward step by step. Then draw with guidance 0, and with 4.",
        "The first guess is a blur, the mean of what could be there; strokes settle early, edges last. At guidance 0"
        " the class is ignored. At 4 every picture is bold and clear, and like the others of its class.",
    ),
)
