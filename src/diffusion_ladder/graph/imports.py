"""Which files of the project a stage imports: what its script names at its top, what those files name, and so on.

Imports inside functions count where a stage loads a module by a name from params.yaml; dvc.yaml says which name.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from diffusion_ladder.foundation.graph import REFERENCE, Definition, filled_in
from diffusion_ladder.params.samplers import MODULES

SOURCE = "src/diffusion_ladder"
SCHEDULERS = f"{SOURCE}/schedulers"
LOADED = {  # modules that a stage loads by a name that is no scalar of params.yaml
    # What draws the previews; and what makes a folder a pipeline of diffusers.
    "train": [f"{SCHEDULERS}/ddim.py", f"{SCHEDULERS}/diffusers_ddpm.py", f"{SOURCE}/networks/diffusers_pipeline.py"],
    "sweep": [f"{SCHEDULERS}/{module}.py" for module in MODULES],
    "compare_schedulers": [f"{SCHEDULERS}/diffusers_interface.py"],
    "play": [f"{SOURCE}/networks/{module}.py" for module in ("mlp", "unet", "diffusers_unet")],
}
READ = {"play": [f"{SOURCE}/report/templates"]}  # what is no Python


def code_of(stage: Definition, by_hand: list[str]) -> list[str]:
    """The files and folders of code that a stage depends on, in order.

    Args:
        by_hand: entries that stay: the folders of all code, and what ${...} names, whose own imports are added.
    """
    entries = {filled_in(entry, stage.entry(key)) for entry in by_hand for key in stage.loop if REFERENCE.search(entry)}
    named = {file for entry in entries for file in files_below(entry)}
    start = [f"stages/{stage.name}.py", *LOADED.get(stage.name, []), *sorted(named)]
    found = {path for file in start for path in [file, *imported(file)]} - named | {*READ.get(stage.name, [])}
    whole = tuple(f"{entry}/" for entry in by_hand if "." not in entry)  # the folders of all code
    return sorted([*by_hand, *as_folders({path for path in found if not path.startswith(whole)})])


def files_below(entry: str) -> list[str]:
    """The file of code that an entry names, or those in the folder that it names."""
    path = Path(entry)
    return [file.as_posix() for file in sorted(path.rglob("*.py"))] if path.is_dir() else [entry]


@functools.cache
def imported(file: str) -> frozenset[str]:
    """All files that importing a file imports, without itself."""
    found: set[str] = set()
    waiting = [file]
    while waiting:
        for path in files_named_in(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return frozenset(found - {file})


@functools.cache
def files_named_in(file: str) -> frozenset[str]:
    """The files of the project that the imports at the top of a file name."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return frozenset(path for module in modules_in(tree) for path in files_of(module))


def modules_in(tree: ast.Module) -> Iterator[str]:
    """The dotted names in the import statements that run at once, those of names that may be modules among them."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(module: str) -> Iterator[str]:
    """The file of a module of this package, and the __init__.py of each package around it, as far as they exist."""
    parts = module.split(".")
    if parts[0] != Path(SOURCE).name:
        return
    places = [Path(SOURCE, *parts[1:number], "__init__.py") for number in range(1, len(parts) + 1)]
    for path in [*places, Path(SOURCE, *parts[1:]).with_suffix(".py")]:
        if path.is_file():
            yield path.as_posix()


def as_folders(files: set[str]) -> set[str]:
    """The same with a folder in the place of its files, where all of them are there."""
    for folder in sorted({str(parent) for file in files for parent in Path(file).parents}):
        inside = {path.as_posix() for path in Path(folder).rglob("*.py")}
        if folder.startswith(f"{SOURCE}/") and len(inside) > 1 and inside <= files:
            return as_folders(files - inside) | {folder}
    return files
