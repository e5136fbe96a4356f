"""What the tests share: the working directory, and one run of the smoke graph."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
HOW_TO_GET_CHROMIUM = "no chromium: get it with `apt-get install -y chromium`"


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the builds of the smoke graph: `make test` runs that in one process, and the rest in another."""
    for item in items:
        if "builds" in getattr(item, "fixturenames", ()):
            item.add_marker("builds")


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(PROJECT)


def as_activated(**changes: str) -> dict[str, str]:
    """The environment variables of a user who activated this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # torch, which the tests have imported, sets the last one.
    gone = ("PYTHONPATH", "TORCHINDUCTOR_CACHE_DIR")
    variables = {key: value for key, value in os.environ.items() if key not in gone}
    return variables | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | changes


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in a folder."""
    variables = as_activated(**environment)
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[http.server.ThreadingHTTPServer]:
    """A local server that answers in the background, at http://127.0.0.1:{server.server_port}, while the block runs."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.handle_error = lambda *arguments: None  # clients that hang up
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.fixture(scope="session")
def builds(tmp_path_factory) -> dict[str, Path]:
    """Two copies of the project with the smoke preset, built by `dvc repro` side by side.

    `elsewhere` is built with another hash seed, locale, time zone, umask, folder, and wish for threads.
    """
    surroundings = {
        "smoke": ("umask 022", {"PYTHONHASHSEED": "0"}),
        "elsewhere": ("umask 027", {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Kathmandu"}),
    }
    wishes = {"smoke": "1", "elsewhere": "2"}  # which params.yaml overrules
    folders, processes = {}, []
    for name, (umask, environment) in surroundings.items():
        folders[name] = folder = tmp_path_factory.mktemp(name) / f"a {name} project"
        copied = run([sys.executable, "-m", "diffusion_ladder.presets", "smoke", "--copy", str(folder)], PROJECT)
        assert copied.returncode == 0, copied.stderr
        with open(folder / "build.log", "w") as log:
            command = ["sh", "-c", f"{umask} && exec dvc repro"]
            threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), wishes[name])
            variables = as_activated(**environment, **threads)
            processes.append(subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT))
    for process, folder in zip(processes, folders.values(), strict=True):
        assert process.wait() == 0, (folder / "build.log").read_text()[-3000:]
    return folders


@pytest.fixture(scope="session")
def smoke(builds) -> Path:
    """A copy of the project with the smoke preset, in which `dvc repro` has run."""
    return builds["smoke"]


def need(program: str | None, in_ci: bool) -> None:
    """Without the browser its tests are skipped, but in CI nothing is left unchecked."""
    if program is None:
        assert not in_ci, HOW_TO_GET_CHROMIUM
        pytest.skip(HOW_TO_GET_CHROMIUM)


@pytest.fixture(scope="module")
def chromium():
    """A real browser."""
    program = shutil.which("chromium")
    need(program, bool(os.environ.get("CI")))
    from playwright.sync_api import sync_playwright  # which most tests don't need

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()
