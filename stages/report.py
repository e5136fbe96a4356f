"""Write the report, and the page about the last run."""

import sys
from pathlib import Path

from diffusion_ladder.artifacts import write_text
from diffusion_ladder.report.page import build_pages
from diffusion_ladder.report.run_page import write_run_page
from diffusion_ladder.runtime import Stage, run_stage


def main(stage: Stage) -> None:
    """Write reports/index.html and reports/README.md from the artifacts, and reports/run/index.html beside them."""
    pages = build_pages(Path(), stage.all_parameters())
    write_text("reports/index.html", pages.html)
    write_text("reports/README.md", pages.markdown)
    for path in pages.linked:
        print(f"reports/index.html links to {path}, which is too large to be part of it", file=sys.stderr)
    write_run_page()


if __name__ == "__main__":
    run_stage(main)
