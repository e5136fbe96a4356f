"""Presets: overlays on params.yaml, such as presets/smoke.yaml.

python -m diffusion_ladder.presets full --overrides     the preset as options for `dvc exp run`
python -m diffusion_ladder.presets smoke --copy FOLDER  a copy of the project with the preset applied
python -m diffusion_ladder.presets default --save       params.yaml as delivered, against which the report tells changes
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import dump_yaml, load_yaml
from diffusion_ladder.overlays import flatten, for_each_rung, in_hydra, laid_over
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.whole import validate

STUDIES = "reports/studies/README.md"  # of reports/ alone in a copy, for it keeps a folder that a stage depends on


def load_preset(name: str) -> dict[str, Any]:
    """The overlay presets/NAME.yaml.

    Raises:
        ParameterError: there is no such preset.
    """
    path = Path("presets") / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in Path("presets").glob("*.yaml")))
        raise ParameterError(f"there is no preset {name}; there are: {known or 'none here, so go to the project'}")
    return load_yaml(path)


def merged_parameters(name: str) -> dict[str, Any]:
    """params.yaml with the preset in it, valid as a whole."""
    values = load_yaml("params.yaml")
    values = laid_over(values, for_each_rung(load_preset(name), values))
    check_consistency(validate(values, f"presets/{name}.yaml"))
    return values


def overrides(name: str) -> list[str]:
    """What the preset changes in params.yaml, as options of `dvc exp run`, quoted for a shell where it must be.

    Raises:
        ParameterError: Hydra's grammar, which DVC's `-S` follows, has no way to write a value.
    """
    now, then = flatten(load_yaml("params.yaml")), flatten(merged_parameters(name))
    settings = []
    for key, value in then.items():
        if key in now and now[key] == value:
            continue
        added = key not in now or isinstance(value, dict)  # a mapping's entries would join those that are there
        settings += [f"~{key}"] if added and key in now else []
        settings.append(f"{'+' if added else ''}{key}={in_hydra(value)}")
    return [f"-S {shlex.quote(setting)}" for setting in settings]


def save(name: str) -> None:
    """Write the values of params.yaml, without its comments, to presets/NAME.yaml."""
    values = load_yaml("params.yaml")
    validate(values, "params.yaml")
    note = f"# The values of params.yaml as delivered, written by `python -m diffusion_ladder.presets {name} --save`.\n"
    (Path("presets") / f"{name}.yaml").write_text(note + dump_yaml(values), encoding="utf-8")


def project_files() -> list[str]:
    """The files that Git tracks or would track.

    Raises:
        ParameterError: this is no Git repository, or there is no Git.
    """
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join((getattr(error, "stderr", "") or str(error)).split())
        raise ParameterError(
            f"git can't list the project's files here: run this in a clone of the project ({said})"
        ) from None
    return [file for file in listed.split("\0") if file and Path(file).is_file()]


def copy_project(name: str, folder: Path) -> None:
    """Copy the project's own files (not what git ignores) to an empty folder, with the preset in its params.yaml.

    Raises:
        ParameterError: the folder is not empty, or the preset does not fit.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ParameterError(f"{folder} is not empty: name a new folder")
    values = merged_parameters(name)
    for file in project_files():
        if not file.startswith("reports/") or file == STUDIES:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file)
    (folder / "dvc.lock").unlink(missing_ok=True)
    (folder / "params.yaml").write_text(dump_yaml(values), encoding="utf-8")
    with (folder / ".dvc/config.local").open("w", encoding="utf-8") as config:
        config.write("[core]\n    no_scm = true\n")  # the copy is no Git repository


def main() -> None:
    """Parse the command line; a mistake is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.presets", description=__doc__)
    parser.add_argument("name", help="a file under presets/, without .yaml")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--overrides", action="store_true", help="print the preset as -S options for dvc exp run")
    action.add_argument("--save", action="store_true", help="keep params.yaml as it is now as this preset")
    action.add_argument("--copy", type=Path, metavar="FOLDER", help="copy the project there, with the preset applied")
    arguments = parser.parse_args()
    try:
        if arguments.overrides:
            print("\n".join(overrides(arguments.name)))
        elif arguments.save:
            save(arguments.name)
        else:
            copy_project(arguments.name, arguments.copy)
    except ParameterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
