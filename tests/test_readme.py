"""What the README shows works as it stands."""

import re
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, run


@pytest.mark.slow
def test_the_python_example_runs():
    examples = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    assert examples
    for example in examples:
        ran = run([sys.executable, "-W", "ignore", "-c", example], PROJECT)
        assert ran.returncode == 0, ran.stderr[-2000:]


def test_every_make_target_that_it_names_exists_and_is_listed_by_help():
    named = set(re.findall(r"`make ([a-z-]+)`", Path("README.md").read_text()))
    helped = run(["make", "--no-print-directory", "help"], PROJECT).stdout
    listed = {line.split()[0] for line in helped.splitlines()}
    assert named
    assert named <= listed
    assert {"repro", "venv", "test", "smoke", "verify", "help"} <= listed


def test_every_file_that_it_names_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)", Path("README.md").read_text()):
        assert Path(path).exists(), path
