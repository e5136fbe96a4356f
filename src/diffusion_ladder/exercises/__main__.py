"""The exercises, checked: `python -m diffusion_ladder.exercises [NUMBER] [--solution]`."""

import argparse
import inspect
import sys
import textwrap
from pathlib import Path

from diffusion_ladder.exercises.catalogue import EXERCISES, Exercise, fault_of
from diffusion_ladder.foundation.errors import UserError

PROJECT = Path(__file__).parents[3]


def chosen(number: int | None) -> list[Exercise]:
    """The exercise of that number, or all.

    Raises:
        UserError: there is no such number.
    """
    if number is not None and not 1 <= number <= len(EXERCISES):
        raise UserError(f"there is no exercise {number}: they are numbered from 1 to {len(EXERCISES)}")
    return EXERCISES if number is None else [EXERCISES[number - 1]]


def solution_of(exercise: Exercise) -> str:
    """The project's function, under its file and line."""
    lines, start = inspect.getsourcelines(exercise.solution)
    path = Path(inspect.getfile(inspect.unwrap(exercise.solution))).relative_to(PROJECT)
    return f"# {path}, line {start}\n{textwrap.dedent(''.join(lines))}"


def verdicts(exercises: list[Exercise], folder: Path) -> list[tuple[Exercise, str]]:
    """Of each exercise what is wrong with the answer in the folder, or nothing."""
    found = []
    for exercise in exercises:
        try:
            found.append((exercise, fault_of(exercise, folder / exercise.file) or ""))
        except UserError as error:
            found.append((exercise, str(error)))
    return found


def main() -> None:
    """Parse the command line; exit code 1 unless every answer asked for is right."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.exercises", description=__doc__)
    parser.add_argument("number", nargs="?", type=int, help="of one exercise; without it, all are checked")
    parser.add_argument("--solution", action="store_true", help="show the project's own function instead")
    arguments = parser.parse_args()
    try:
        exercises = chosen(arguments.number)
    except UserError as error:
        sys.exit(str(error))
    if arguments.solution:
        print("\n\n".join(map(solution_of, exercises)))
        return
    found = verdicts(exercises, Path())
    for exercise, fault in found:
        print(f"{exercise.number:2d}  {exercise.name:21}  {fault or 'right'}")
    sys.exit(any(fault for _, fault in found))


if __name__ == "__main__":
    main()
