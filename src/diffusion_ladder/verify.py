"""Hash every output again and compare it with dvc.lock: `python -m diffusion_ladder.verify`.

DVC trusts its own records of what it has hashed before, and calls a file up to date whose bytes have rotted. This reads
every byte, of the outputs in the working tree.
"""

import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from diffusion_ladder.hashes import md5_of_output


def complaints(lock: Path) -> list[str]:
    """A line for every output that is missing or whose bytes are not those of the lock."""
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    outputs = [(stage, output) for stage, entry in stages.items() for output in entry.get("outs", [])]
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


def main() -> None:
    """Print the complaints; exit code 1 if there are any."""
    lock = Path("dvc.lock")
    if not lock.is_file():
        sys.exit("dvc.lock is missing: run `dvc repro` first")
    found = complaints(lock)
    print("\n".join(found) or "every output is what dvc.lock says")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
