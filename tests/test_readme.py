"""What the README and the pages under docs/ show works as it stands."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest
import yaml
from conftest import PROJECT, run
from hydra.core.override_parser.overrides_parser import OverridesParser

from diffusion_ladder.foundation.section import load_yaml, look_up
from diffusion_ladder.params.whole import validate

PAGES = [PROJECT / "README.md", PROJECT / "exercises/README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def texts() -> str:
    return "\n".join(page.read_text() for page in PAGES)


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.slow
def test_the_python_examples_run():
    examples = re.findall(r"```python\n(.*?)```", texts(), re.S)
    assert examples
    for example in examples:
        ran = run([sys.executable, "-W", "ignore", "-c", example], PROJECT)
        assert ran.returncode == 0, ran.stderr[-2000:]


def test_every_make_target_that_it_names_exists_and_is_listed_by_help():
    named = set(re.findall(r"`make ([a-z-]+)`", texts()))
    helped = run(["make", "--no-print-directory", "help"], PROJECT).stdout
    listed = {line.split()[0] for line in helped.splitlines()}
    assert named
    assert named <= listed
    assert {"repro", "venv", "test", "smoke", "verify", "help"} <= listed


def test_serve_shows_the_report():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = ["make", "--old-file=.venv/installed", "serve", f"PORT={port}"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=PROJECT, start_new_session=True, **silent)
    try:
        for _ in range(100):
            time.sleep(0.1)
            with suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/") as answer:
                page = answer.read()
                break
        assert page == (PROJECT / "reports/index.html").read_bytes()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def test_make_prints_the_path_of_the_page_at_the_end():
    planned = run(
        ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/installed", "repro"], PROJECT
    ).stdout.splitlines()
    assert "dvc repro" in planned
    assert planned[-1] == f'echo "The report: {PROJECT / "reports/index.html"}"'


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_it_names_exists(page):
    for path in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / path).exists(), path


def settings_of(command):
    """Keys, with `+` or `~` before them, and values that a command sets."""
    return re.findall(r"-S '?([+~]?[\w.]+)(?:=(\{.*?\}|[^\s']+))?", command)


def test_every_key_that_a_command_sets_is_one_of_the_parameters():
    """Each -S key stands in params.yaml, or is turned on with a plus sign; the parameters are then valid."""
    commands = [line for line in texts().replace("\\\n", " ").splitlines() if "dvc exp run" in line]
    assert any("-S +" in command for command in commands)
    for command in commands:
        values = load_yaml("params.yaml")
        for key, value in settings_of(command):
            path = key.strip("~+=").split(".")
            section = look_up(values, ".".join(path[:-1]))
            assert (path[-1] not in section) == key.startswith("+"), key
            if key.startswith("~"):
                del section[path[-1]]
            elif value.startswith("{"):
                section[path[-1]] = OverridesParser.create().parse_override(f"x={value}").value()
            else:
                section[path[-1]] = yaml.safe_load(value.split(",")[0])
        validate(values)
