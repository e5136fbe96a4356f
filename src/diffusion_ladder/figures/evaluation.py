"""What an evaluation found out in pictures: the curves and matrices that no single number tells."""

from collections.abc import Callable, Iterator

from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.figures.style import Exhibit

EXHIBITS: dict[str, Callable[[Findings], Exhibit]] = {}  # by the table that each is drawn from, in the order of reading


def exhibits(findings: Findings) -> Iterator[Exhibit]:
    """A picture of each table that there is one for."""
    for table, draw in EXHIBITS.items():
        if table in findings.tables:
            yield draw(findings)
