"""Each known failure fails, and is mended, as its page says."""

import functools
import re
import sys

import pytest
from conftest import PROJECT, run
from PIL import Image

from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.known_failures.__main__ import main, show
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


@functools.cache
def found(name: str, mended: bool) -> Finding:
    return BY_NAME[name].run(mended)


def stands_apart(name: str, failing: float, mended: float) -> bool:
    fails, mends = BOUNDS[name]
    if fails > mends:
        return failing >= fails and mended <= mends
    return failing <= fails and mended >= mends


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_it_fails_and_is_mended(failure, tmp_path):
    failing, mended = (found(failure.name, each) for each in (False, True))
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
    def second(name, mended):
        return list(found(name, mended).numbers.values())[1]

    ground = second("grey-backgrounds", True)
    assert ground == pytest.approx(127.5 * 0.25, abs=1)  # uniform from black to half the way to the middle
    share = found("copies", True).numbers["share of samples that are copies"]
    assert share == pytest.approx(second("copies", True), abs=0.06)
    assert second("copies", False) < 0.4  # of held-out points, among the same eight
    assert second("repeated-batches", True) == 0  # the weights, to the bit
    assert second("repeated-batches", False) > 0
    assert second("falling-loss", False) < second("falling-loss", True) / 4


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


def test_the_command_runs_one_of_them(tmp_path):
    command = [sys.executable, "-m", "diffusion_ladder.known_failures", "few-images", "--mended"]
    ran = run(command, tmp_path, PYTHONPATH=f"{PROJECT}/src")
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"Frechet distance of real digits from real digits: 0\.0\d+\nReal digits are .*\n", ran.stdout)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["green-images"], r"there is no failure 'green-images': choose one of only-noise, .*"),
        (["few-images", "--picture", "none.png"], r"this failure has no picture: its numbers say it all"),
        (["washed-out", "--picture", "a file/none.png"], r"a file/none.png can't be written: .*"),
    ],
)
def test_a_mistake_is_one_line(arguments, complaint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    monkeypatch.setattr(sys, "argv", ["known_failures", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert re.fullmatch(complaint, str(stopped.value.code))
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
