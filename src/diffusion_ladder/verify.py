"""Hash every output again and compare it with dvc.lock: `python -m diffusion_ladder.verify`.

DVC trusts its own records of what it has hashed before, and calls a file up to date whose bytes have rotted. This reads
every byte, of the outputs in the working tree and of what DVC's cache has of them.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.graph import read_graph
from diffusion_ladder.foundation.hashes import md5_of_file, md5_of_output
from diffusion_ladder.foundation.section import load_yaml


def complaints(lock: Path) -> list[str]:
    """A line for every output that is missing or whose bytes are not those of the lock."""
    outputs = outputs_of(lock)
    found = []
    for stage, output in tqdm(outputs, desc="verify", unit=" outputs"):
        path = lock.parent / output["path"]
        if not path.exists():
            found.append(f"{output['path']} is missing; `dvc checkout` or `dvc repro` brings it back ({stage})")
        elif md5_of_output(output["path"], lock.parent) != output["md5"]:
            found.append(
                f"{output['path']} is not what {stage} wrote; `dvc repro --force --single-item {stage}` makes it again"
            )
    return found


def outputs_of(lock: Path) -> list[tuple[str, dict[str, Any]]]:
    """All outputs in dvc.lock, each after its stage."""
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return [(stage, output) for stage, entry in stages.items() for output in entry.get("outs", [])]


def complaints_about_cache(lock: Path, cache: Path) -> list[str]:
    """A line for every file that DVC's cache should have of the outputs, and lacks, or has with other bytes.

    Args:
        cache: the folder that `dvc cache dir` names.
    """
    kept = cached_paths(lock.parent)
    outputs = [(stage, output) for stage, output in outputs_of(lock) if output["path"] in kept]
    found = []
    for stage, output in tqdm(outputs, desc="verify the cache", unit=" outputs"):
        for path, relative in parts_of(output["md5"], cache):
            what = f"the cache's copy of {output['path']}{relative}, {path},"
            if not path.is_file():
                found.append(f"{what} is missing; `dvc commit --force {stage}` puts it back")
            elif md5_of_file(path) != path.parent.name + path.name.removesuffix(".dir"):
                found.append(f"{what} was altered; `rm -f {path} && dvc commit --force {stage}` puts it back")
    return found


def cached_paths(root: Path) -> set[str]:
    """The outputs that DVC keeps in its cache: those without `cache: false`."""
    stages = read_graph(load_yaml(root / "params.yaml"), root / "dvc.yaml").values()
    return {
        name
        for stage in stages
        for key in stage.loop or [""]
        for kind in ("outs", "metrics", "plots")
        for entry, name in zip(stage.body.get(kind, []), stage.listed(kind, key), strict=True)
        if isinstance(entry, str) or all(options.get("cache", True) for options in entry.values())
    }


def parts_of(md5: str, cache: Path) -> Iterator[tuple[Path, str]]:
    """The files in the cache that an output consists of, each with its place below the output.

    Of a folder whose list is damaged there is no telling which files it has.
    """
    path = cache / "files/md5" / md5[:2] / md5[2:]
    yield path, ""
    if md5.endswith(".dir") and path.is_file() and md5_of_file(path) == md5.removesuffix(".dir"):
        for entry in json.loads(path.read_text(encoding="utf-8")):
            yield cache / "files/md5" / entry["md5"][:2] / entry["md5"][2:], f"/{entry['relpath']}"


def cache_folder() -> Path:
    """Where DVC keeps its cache.

    Raises:
        UserError: DVC can't say.
    """
    try:
        asked = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError("`dvc cache dir` fails: activate the project's environment, in the project's folder") from None
    return Path(asked.stdout.strip())


def main() -> None:
    """Print the complaints; exit code 1 if there are any."""
    lock = Path("dvc.lock")
    if not lock.is_file():
        sys.exit("dvc.lock is missing: run `dvc repro` first")
    try:
        found = complaints(lock) + complaints_about_cache(lock, cache_folder())
    except UserError as error:
        sys.exit(str(error))
    print("\n".join(found) or "every output, and the cache's copy of it, is what dvc.lock says")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
