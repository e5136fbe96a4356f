"""The exercises: which function of the project each one leaves out, and by what it is checked."""

import ast
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from diffusion_ladder.diffusion.schedules import add_noise, beta_of_alpha_bar, make_beta
from diffusion_ladder.diffusion.targets import x0_and_epsilon
from diffusion_ladder.exercises.checks_of_noise import Answer, check_add_noise, check_beta_of_alpha_bar, check_make_beta
from diffusion_ladder.exercises.checks_of_sampling import (
    check_ddim_step,
    check_ddpm_step,
    check_guided,
    check_x0_and_epsilon,
)
from diffusion_ladder.exercises.checks_of_training import check_losses_of, check_sinusoidal_embedding, check_update
from diffusion_ladder.exercises.faults import Fault
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.networks.embeddings import sinusoidal_embedding
from diffusion_ladder.sampling.guidance import guided
from diffusion_ladder.schedulers.ddim import ddim_step
from diffusion_ladder.schedulers.ddpm import ddpm_step
from diffusion_ladder.training.ema import ExponentialMovingAverage
from diffusion_ladder.training.loop import losses_of

FOLDER = Path("exercises")
SECONDS = 60  # of a check: each takes well below one with the project's function


@dataclass(frozen=True)
class Exercise:
    """A function to write.

    Attributes:
        number: from 1.
        solution: the project's own.
        check: raises a Fault for a wrong one.
    """

    number: int
    solution: Callable[..., Any]
    check: Callable[[Answer], None]

    @property
    def name(self) -> str:
        """The function's name."""
        return self.solution.__name__

    @property
    def file(self) -> Path:
        """Where the reader writes it, from the project's folder."""
        return FOLDER / f"{self.number:02d}_{self.name}.py"


PAIRS: list[tuple[Callable[..., Any], Callable[[Answer], None]]] = [
    (make_beta, check_make_beta),
    (beta_of_alpha_bar, check_beta_of_alpha_bar),
    (add_noise, check_add_noise),
    (sinusoidal_embedding, check_sinusoidal_embedding),
    (losses_of, check_losses_of),
    (ExponentialMovingAverage.update, check_update),
    (x0_and_epsilon, check_x0_and_epsilon),
    (ddpm_step, check_ddpm_step),
    (ddim_step, check_ddim_step),
    (guided, check_guided),
]
EXERCISES = [Exercise(number, *pair) for number, pair in enumerate(PAIRS, start=1)]


def is_unwritten(path: Path, name: str) -> bool:
    """Whether the body of a function is a docstring and `...`, as delivered."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return all(
                isinstance(line, ast.Pass) or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                for line in node.body
            )
    return False


def answer_in(path: Path, name: str) -> Answer:
    """The function of that name in a reader's file.

    Raises:
        UserError: there is no such file or function, or the file can't be imported.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: `git checkout {path}` brings it back as delivered")
    namespace: dict[str, Any] = {"__name__": path.stem}
    try:
        exec(compile(path.read_text(encoding="utf-8"), path, "exec"), namespace)  # leaves no compiled file behind
    except (Exception, SystemExit) as error:
        raise UserError(in_one_line(error, path)) from error
    if not callable(answer := namespace.get(name)):
        raise UserError(f"{path} has no function {name}: keep its name")
    return answer


def in_one_line(error: BaseException, path: Path) -> str:
    """An exception of a reader's file: its kind, the last line of that file that it went through, what it says."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    said = (error.msg if isinstance(error, SyntaxError) else str(error)).strip().split("\n")[0]
    return f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {said}"


class TooLong(BaseException):
    """An answer ran for longer than it may; no Exception, so that no `except` of its own catches this."""


@contextmanager
def limited(seconds: float, path: Path) -> Iterator[None]:
    """Interrupt a reader's code that doesn't come to an end.

    Raises:
        UserError: the time was up; the line tells where the file was.
    """

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong(f"still running after {seconds:g} s: does a loop never end?")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TooLong as error:
        raise UserError(in_one_line(error, path)) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fault_of(exercise: Exercise, path: Path, seconds: float = SECONDS) -> str | None:
    """What is wrong with the answer in a file, in one line; None where it passes every check.

    Raises:
        UserError: the file holds no answer that could be checked, or one that doesn't come to an end.
    """
    with limited(seconds, path):
        return fault_found(exercise, path)


def fault_found(exercise: Exercise, path: Path) -> str | None:
    """`fault_of`, however long it takes."""
    answer = answer_in(path, exercise.name)
    if is_unwritten(path, exercise.name):
        return f"not written yet: {path}"
    try:
        exercise.check(answer)
    except Fault as fault:
        return str(fault)
    except (Exception, SystemExit) as error:  # of the answer: the checks themselves pass with the project's function
        return in_one_line(error, path)
    return None
