"""Write the live pages: reports/play.html, small enough for Git, and data/play.html with every network that can run."""

from typing import Any

from diffusion_ladder.foundation.artifacts import write_text
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.foundation.section import rung_section, validated
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.play.models import Plan
from diffusion_ladder.play.page import LARGE_BYTES, SMALL_BYTES, build_page, read_candidates, selected

ELSEWHERE = "it runs in [data/play.html](../data/play.html), which `dvc repro` writes"


def main(stage: Stage) -> None:
    """Write both pages from the trained networks."""
    rungs, shared = (stage.parameter(key, dict[str, Any]) for key in ("rungs", "every_rung.sampling"))
    values = {"rungs": rungs, "every_rung": {"sampling": shared}}
    sampling = {
        key: validated(Sampling, rung_section(values, key, "sampling"), f"rungs.{key}.sampling") for key in rungs
    }
    candidates = read_candidates({key: Plan(rung["title"], sampling[key]) for key, rung in rungs.items()})
    small, large = selected(candidates, SMALL_BYTES, ELSEWHERE), selected(candidates, LARGE_BYTES, "it is too large")
    write_text("reports/play.html", build_page(small, report="index.html"))
    write_text("data/play.html", build_page(large, report="../reports/index.html"))
    for _, title, reason in small.left_out:
        print(f"reports/play.html leaves out {title}: {reason}")


if __name__ == "__main__":
    run_stage(main)
