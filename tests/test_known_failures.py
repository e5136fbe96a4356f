"""Each known failure fails, and is mended, as its page says."""

import re
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, run
from PIL import Image

from diffusion_ladder.artifacts import read_json
from diffusion_ladder.known_failures.__main__ import show
from diffusion_ladder.known_failures.failures import BY_NAME, FAILURES, Finding
from diffusion_ladder.known_failures.page import in_words, render, save_picture

PAGE = PROJECT / "docs/known-failures.md"
RESULTS = PROJECT / "docs/known-failures/results.json"

# Of the first number: where it fails at least the one, and mended at most the other; or the other way round.
BOUNDS = {
    "only-noise": (0.7, 0.25),
    "washed-out": (128, 0),
    "grey-backgrounds": (50, 40),
    "copies": (0.4, 0.2),
    "repeated-batches": (0.5, 0.0),
    "average-that-never-moves": (0.05, 0.7),
    "black-images": (1.0, 0.0),
    "falling-loss": (0.5, 0.25),
    "checkerboards": (0.02, 0.001),
    "few-images": (0.5, 0.1),
}


def stands_apart(name: str, failing: float, mended: float) -> bool:
    fails, mends = BOUNDS[name]
    if fails > mends:
        return failing >= fails and mended <= mends
    return failing <= fails and mended >= mends


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_it_fails_and_is_mended(failure, tmp_path):
    failing, mended = failure.run(False), failure.run(True)
    first = next(iter(failing.numbers))
    assert stands_apart(failure.name, failing.numbers[first], mended.numbers[first]), (failing.numbers, mended.numbers)
    assert list(failing.numbers) == list(mended.numbers) == [row["what"] for row in read_json(RESULTS)[failure.name]]
    if failing.picture is not None:
        save_picture({"as it fails": failing, "mended": mended}, tmp_path / "picture.png")
        shown, committed = (
            Image.open(path) for path in (tmp_path / "picture.png", RESULTS.parent / f"{failure.name}.png")
        )
        assert shown.size == committed.size
        assert len(shown.convert("RGB").getcolors(2**16)) > 2


@pytest.mark.slow
def test_what_else_is_measured():
    _, data = BY_NAME["grey-backgrounds"].run(True).numbers.values()
    assert data == pytest.approx(127.5 * 0.25, abs=1)  # half the way from black to the middle, on average half of it
    copies, resumed, loss = (BY_NAME[name] for name in ("copies", "repeated-batches", "falling-loss"))
    (_, failing), (share, held_out) = ((*copies.run(mended).numbers.values(),) for mended in (False, True))
    assert failing < 0.4
    assert share == pytest.approx(held_out, abs=0.06)
    assert list(resumed.run(True).numbers.values())[1] == 0  # the weights, to the bit
    assert list(resumed.run(False).numbers.values())[1] > 0
    low, high = (list(loss.run(mended).numbers.values())[1] for mended in (False, True))
    assert low < high / 4


def test_the_page_is_written_from_the_results_and_the_results_stand_apart():
    results = read_json(RESULTS)
    assert PAGE.read_text() == render(results), "run `make known-failures`"
    assert set(results) == set(BY_NAME)
    for name, (first, *_) in results.items():
        assert stands_apart(name, first["failing"], first["mended"])


def test_every_failure_stands_on_the_page_with_both_commands():
    commands = re.findall(r"^python -m diffusion_ladder.known_failures (.*)$", PAGE.read_text(), re.M)
    assert commands == [f"{failure.name}{option}" for failure in FAILURES for option in ("", " --mended")]


def test_the_command_prints_the_numbers_and_what_to_look_for(tmp_path):
    said = show("checkerboards", mended=False, picture=tmp_path / "grid.png")
    finding: Finding = BY_NAME["checkerboards"].run(False)
    ((what, value),) = finding.numbers.items()
    assert said == f"{what}: {in_words(value)}\n{BY_NAME['checkerboards'].failing}"
    assert Image.open(tmp_path / "grid.png").width > 200


def command(*arguments, folder: Path = PROJECT):
    return run(
        [sys.executable, "-m", "diffusion_ladder.known_failures", *arguments], folder, PYTHONPATH=f"{PROJECT}/src"
    )


@pytest.mark.slow
def test_the_command_line(tmp_path):
    ran = command("few-images", "--mended", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"Frechet distance of real digits from real digits: 0\.0\d+\nReal digits are .*\n", ran.stdout)
    unknown = command("green-images")
    assert unknown.returncode == 1
    assert re.fullmatch(r"there is no failure 'green-images': choose one of only-noise, .*\n", unknown.stderr)
    blind = command("few-images", "--picture", str(tmp_path / "none.png"))
    assert (blind.returncode, blind.stderr) == (1, "this failure has no picture: its numbers say it all\n")
    assert not (tmp_path / "none.png").exists()
