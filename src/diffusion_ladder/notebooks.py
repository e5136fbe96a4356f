"""Execute the notebooks on the artifacts at hand: `python -m diffusion_ladder.notebooks [NAME ...]`.

notebooks/NAME.py, a script whose cells begin with `# %%`, becomes notebooks/NAME.ipynb with its outputs. What changes
from run to run is left out, so that the same artifacts give the same bytes: times, random names, and how a progress bar
got to its end.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from diffusion_ladder.foundation.artifacts import write_text
from diffusion_ladder.foundation.errors import UserError

FOLDER = Path("notebooks")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's bars are text here, on purpose
SECONDS = 600  # that a cell may take
TIMES = re.compile(r" *\[\d+:\d\d[^\]\n]*\] *")  # at the end of a progress bar, padded over what was longer


def scripts() -> dict[str, Path]:
    """The notebooks' scripts by name."""
    paths = sorted(FOLDER.glob("*.py"))
    return {path.stem: path for path in paths if path.read_text(encoding="utf-8").startswith("# %%")}


def execute(script: Path) -> str:
    """The notebook of a script with its outputs, as JSON.

    Raises:
        UserError: a cell fails.
    """
    notebook = jupytext.read(script)
    where = {"metadata": {"path": str(script.parent)}}
    try:
        NotebookClient(notebook, timeout=SECONDS, kernel_name=KERNEL["name"], resources=where).execute(env=ENVIRONMENT)
    except CellExecutionError as error:
        raise UserError(f"{script}: a cell fails: {error.ename}: {error.evalue}") from None
    return str(nbformat.writes(repeatable(notebook))) + "\n"


def repeatable(notebook: Any) -> Any:
    """An executed notebook without what changes from run to run."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Outputs of a cell, with all that went to one stream in one place, as it stands at the end."""
    texts: dict[str, str] = {}
    for output in outputs:
        if output.output_type == "stream":
            texts[output.name] = texts.get(output.name, "") + output.text
    streams = [nbformat.v4.new_output("stream", name=name, text=at_the_end(texts[name])) for name in sorted(texts)]
    return streams + [output for output in outputs if output.output_type != "stream"]


def at_the_end(text: str) -> str:
    """A stream's lines as a terminal shows them in the end, progress bars without their times."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return TIMES.sub("", "\n".join(lines))


def main() -> None:
    """Execute those named, or all; a mistake is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.notebooks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a notebook; all of them without")
    names, known = parser.parse_args().names, scripts()
    try:
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"there is no notebook {unknown[0]}; choose of {', '.join(known) or 'none here'}")
        for name in tqdm(names or known, desc="notebooks"):
            write_text(FOLDER / f"{name}.ipynb", execute(known[name]))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
