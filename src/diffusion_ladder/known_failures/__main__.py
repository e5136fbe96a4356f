"""Ten known failures, each small: `python -m diffusion_ladder.known_failures NAME [--mended] [--picture FILE]`.

`--write` runs them all, and writes docs/known-failures.md with the numbers and pictures.
"""

import argparse
import sys
from pathlib import Path

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.known_failures.failures import BY_NAME
from diffusion_ladder.known_failures.page import in_words, save_picture, write


def show(name: str, mended: bool, picture: Path | None) -> str:
    """What was measured, a line for each number, and what to look for.

    Raises:
        UserError: there is no such failure, or nothing to see.
    """
    if name not in BY_NAME:
        raise UserError(f"there is no failure {name!r}: choose one of {', '.join(BY_NAME)}")
    failure = BY_NAME[name]
    finding = failure.run(mended)
    if picture is not None:
        save_picture({"mended" if mended else "as it fails": finding}, picture)
    lines = [f"{what}: {in_words(value)}" for what, value in finding.numbers.items()]
    return "\n".join([*lines, failure.mended if mended else failure.failing])


def main() -> None:
    """Parse the command line; a mistake is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.known_failures", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("name", nargs="?", help=", ".join(BY_NAME))
    action.add_argument("--write", action="store_true", help="run all, and write the page")
    parser.add_argument("--mended", action="store_true", help="show the mend in place of the failure")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write what can be seen to a PNG file")
    arguments = parser.parse_args()
    try:
        if arguments.write:
            write(Path("docs"))
        else:
            print(show(arguments.name, arguments.mended, arguments.picture))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
