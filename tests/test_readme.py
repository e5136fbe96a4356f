"""What the README shows works as it stands."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
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


def test_every_file_that_it_names_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)", Path("README.md").read_text()):
        assert Path(path).exists(), path
