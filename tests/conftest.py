"""What the tests share: the working directory, and one run of the smoke graph."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(PROJECT)


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in a folder, as a user would who activated it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    variables |= {"PATH": path, "DVC_NO_ANALYTICS": "1"} | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> Path:
    """A copy of the project with the smoke preset, in which `dvc repro` has run."""
    folder = tmp_path_factory.mktemp("smoke") / "project"
    copied = run([sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(folder)], PROJECT)
    assert copied.returncode == 0, copied.stderr
    built = run(["dvc", "repro"], folder)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return folder
