"""The hub: a local server that serves a folder as the hub does, and misbehaves in each way that it can."""

import hashlib
import http.server
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import pyarrow
import pyarrow.parquet
import pytest
from conftest import serving
from pydantic import ValidationError

from diffusion_ladder.data.portraits import dataset as portraits
from diffusion_ladder.data.portraits import hub
from diffusion_ladder.foundation.artifacts import read_json, sha256_of_file
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import HubSource
from diffusion_ladder.params.whole import load_parameters

ROOT = Path(__file__).resolve().parents[1]
FACES = load_parameters(ROOT / "params.yaml").datasets["faces"]
FILE = "data/train.parquet"


class Hub(http.server.BaseHTTPRequestHandler):
    """The hub, and under another host name the storage to which it redirects downloads."""

    def do_HEAD(self):
        self.respond()

    def do_GET(self):
        self.respond()

    def respond(self):
        state = self.server.state
        if self.path.startswith("/api/"):  # what else the client is curious about
            return self.send(404, {})
        state.asked.append((self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if self.path.startswith("/storage/"):
            return self.send_content(state.content)
        if state.answer:
            return self.send(*state.answer)
        repository, _, place = self.path.removeprefix("/datasets/").partition("/resolve/")
        revision, _, name = place.partition("/")
        folder = state.folder / "datasets" / repository
        if not folder.is_dir():
            return self.send(404, {"X-Error-Code": "RepoNotFound"})
        if not (folder / "resolve" / revision).is_dir():
            return self.send(404, {"X-Error-Code": "RevisionNotFound"})
        if not (path := folder / "resolve" / revision / name).is_file():
            return self.send(404, {"X-Error-Code": "EntryNotFound"})
        digest = sha256_of_file(path)
        return self.send(
            302,
            {
                "Location": f"http://localhost:{self.server.server_address[1]}/storage/{digest}",
                "X-Repo-Commit": "c" * 40,
                "X-Linked-Size": str(state.announced or path.stat().st_size),
                "X-Linked-Etag": f'"{digest}"',
            },
        )

    def send(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_content(self, data):
        state = self.server.state
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = len(data) if state.cut is None else state.cut
        for place in range(start, end, 5_000_000):
            self.wfile.write(data[place : min(place + 5_000_000, end)])
            time.sleep(state.pause)

    def log_message(self, *arguments):
        pass


class State:
    """What the server has, how it misbehaves, and what it was asked."""

    def __init__(self, folder, content):
        self.folder, self.content = folder, content
        self.asked, self.answer, self.announced, self.cut, self.pause = [], None, None, None, 0


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """A file with all 15 columns of the TMDB set."""
    folder = tmp_path_factory.mktemp("drawn")
    portraits.fetch("dicebear", FACES.sources.dicebear.model_copy(update={"count": 12}), 0, folder)
    return (folder / "portraits.parquet").read_bytes()


@pytest.fixture
def server(parquet, tmp_path, monkeypatch):
    state = State(tmp_path / "hub", parquet)
    path = state.folder / "datasets/someone/portraits/resolve/main" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(parquet)
    with serving(Hub) as server:
        server.state = state
        state.address = f"http://127.0.0.1:{server.server_port}"
        point_at(monkeypatch, state.address)
        (tmp_path / "project").mkdir()
        monkeypatch.chdir(tmp_path / "project")
        yield state


def point_at(monkeypatch, address):
    """What the environment variables HF_ENDPOINT and HF_HOME do before the client is imported."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "no such cache")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "no such token")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of an interrupted download: whole chunks
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


def settings(data, **changes):
    values = {"repository": "someone/portraits", "revision": "main", "file": FILE, "columns": ["image", "gender"]}
    identity = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return HubSource.model_validate(values | identity | changes)


def fetch(data, folder="data/raw/faces", **changes):
    return portraits.fetch("hub", settings(data, **changes), 0, Path(folder))


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def failure(data, **changes):
    """The message of a fetch that fails, which must be one line and leave earlier data alone."""
    earlier = Path("data/raw/faces/portraits.parquet")
    earlier.parent.mkdir(parents=True, exist_ok=True)
    earlier.write_bytes(b"what was there before")
    with pytest.raises(UserError) as error:
        fetch(data, **changes)
    assert "\n" not in str(error.value)
    assert earlier.read_bytes() == b"what was there before"
    assert files_below("data/raw") == ["faces/portraits.parquet"]
    return str(error.value)


def test_only_the_chosen_columns_of_the_verified_file_are_kept(server, parquet):
    card = fetch(parquet)
    source = pyarrow.parquet.read_table(pyarrow.BufferReader(parquet))
    table = pyarrow.parquet.read_table("data/raw/faces/portraits.parquet")
    assert len(source.schema) == 15
    assert sorted(table.schema.names) == ["gender", "image"]
    assert table.to_pylist() == source.select(table.schema.names).to_pylist()
    assert (card["rows"], card["licence"], card["synthetic"]) == (12, "not stated", False)
    assert card["origin"] == "https://huggingface.co/datasets/someone/portraits"
    published = {"sha256": hashlib.sha256(parquet).hexdigest(), "size": len(parquet), "name": FILE}
    assert card["published"][0].items() > published.items()
    assert card["files"][0]["sha256"] == sha256_of_file("data/raw/faces/portraits.parquet")
    assert files_below("data") == [f"downloads/{published['sha256']}.parquet", "raw/faces/portraits.parquet"]
    assert [asked[0] for asked in server.asked] == ["HEAD", "GET"]
    first = Path("data/raw/faces/portraits.parquet").read_bytes()
    fetch(parquet)
    assert Path("data/raw/faces/portraits.parquet").read_bytes() == first
    assert len(server.asked) == 2  # the copy was verified, and nobody asked again


@pytest.mark.parametrize("name", ["[work] x", "what?", "a*b", "~", "100% [1-3]", "{a,b}"])
def test_the_project_s_folder_may_be_called_like_a_pattern(server, parquet, tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    assert fetch(parquet)["rows"] == 12


def test_a_damaged_copy_is_noticed_and_downloaded_again(server, parquet, capfd):
    fetch(parquet)
    copy = Path("data/downloads") / f"{hashlib.sha256(parquet).hexdigest()}.parquet"
    for damaged in (parquet[:-1], parquet[:-1] + b"x"):
        copy.write_bytes(damaged)
        server.asked.clear()
        fetch(parquet)
        assert copy.read_bytes() == parquet
        assert len(server.asked) == 2
        assert f"not used, {copy} has " in capfd.readouterr().out


def test_the_client_s_own_cache_is_used_if_it_holds_the_file(server, parquet, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    cached = Path(huggingface_hub.hf_hub_download("someone/portraits", FILE, repo_type="dataset"))
    server.asked.clear()
    assert fetch(parquet)["rows"] == 12
    assert not server.asked
    assert files_below("data") == ["raw/faces/portraits.parquet"]
    cached.write_bytes(parquet[:-1] + b"x")
    assert fetch(parquet)["rows"] == 12
    assert len(server.asked) == 2
    assert cached.read_bytes() == parquet[:-1] + b"x"  # other projects' business


def test_an_interrupted_download_is_resumed(server, parquet):
    server.cut = 5000
    message = failure(parquet)
    assert f"5,000 of {len(parquet):,} bytes are kept, and the next run goes on from there" in message
    server.cut = None
    server.asked.clear()
    fetch(parquet)
    assert [asked[2] for asked in server.asked] == [None, "bytes=5000-"]
    assert len(files_below("data")) == 2


def test_a_file_that_changed_while_it_was_interrupted_is_refused_and_removed(server, parquet):
    server.cut = 5000
    failure(parquet)
    partial = next(Path("data/downloads").glob("*.partial"))
    server.cut = None
    for size in (5000, len(parquet)):
        partial.write_bytes(b"x" * size)
        assert "has SHA-256" in failure(parquet)
        assert not files_below("data/downloads")
    partial.write_bytes(parquet + b"x")
    fetch(parquet)


def test_a_download_that_was_complete_but_not_in_its_place_is_verified_and_used(server, parquet):
    Path("data/downloads").mkdir(parents=True)
    (Path("data/downloads") / f"{hashlib.sha256(parquet).hexdigest()}.partial").write_bytes(parquet)
    fetch(parquet)
    assert [asked[0] for asked in server.asked] == ["HEAD"]
    assert [path.suffix for path in Path("data/downloads").iterdir()] == [".parquet"]


RESPONSES = {
    "401": ((401, {}), "the hub wants a valid token (401)"),
    "403, gated": ((403, {"X-Error-Code": "GatedRepo"}), "access is restricted: accept the data set's conditions"),
    "403": ((403, {}), "the hub answered 403"),
    "500": ((500, {}), "the hub answered 500: run again later"),
    "a page": ((200, {"Content-Type": "text/html"}, b"<html>log in</html>"), "the hub has a file of 19 bytes, but"),
}


@pytest.mark.parametrize("answer", RESPONSES)
def test_each_refusal_is_explained_in_one_line(server, parquet, answer):
    server.answer, message = RESPONSES[answer]
    found = failure(parquet)
    assert found.startswith(f"someone/portraits/{FILE} at revision main: {message}")
    assert found.endswith(f"; {hub.GO_ON}")
    assert not files_below("data/downloads")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repository": "someone/else"}, "there is no such data set, or it is private: check"),
        ({"revision": "d" * 40}, "there is no such revision: check sources.hub.revision"),
        ({"file": "data/other.parquet"}, "there is no such file: check sources.hub.file"),
        ({"size": 5}, "the hub has a file of .* bytes, but sources.hub.size is 5"),
        ({"sha256": "0" * 64}, "the download has SHA-256 .*, but .*sha256 is 000.*it was deleted: run again"),
        ({"columns": ["image", "sex"]}, "hub.columns: .* has no column sex, but adult, also_known_as"),
    ],
)
def test_what_is_not_there_is_named(server, parquet, changes, message):
    assert re.search(message, failure(parquet, **changes))


def test_no_network_is_explained(server, parquet, monkeypatch):
    point_at(monkeypatch, "http://127.0.0.1:1")
    assert "no connection to the hub ([Errno 111] Connection refused): connect to a network" in failure(parquet)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set: unset it to download" in failure(parquet)
    assert not files_below("data/downloads")


def test_a_token_is_sent_if_there_is_one_and_only_to_the_hub(server, parquet, monkeypatch):
    fetch(parquet, "first")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for copy in Path("data/downloads").iterdir():
        copy.unlink()
    fetch(parquet, "second")
    assert [asked[3] for asked in server.asked] == [None, None, "Bearer hf_secret", None]


def test_something_else_than_parquet_is_refused(server):
    server.content = b"PAR1 but not really"
    path = server.folder / "datasets/someone/portraits/resolve/main" / FILE
    path.write_bytes(server.content)
    assert "can't be read as parquet" in failure(server.content)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../../secret.parquet"},
        {"file": "/etc/secret.parquet"},
        {"file": "data/model.pkl"},
        {"file": "data/.cache/x.parquet"},
        {"revision": "../main"},
        {"repository": "../portraits"},
        {"repository": "portraits"},
        {"columns": []},
    ],
)
def test_paths_that_lead_elsewhere_and_other_kinds_of_files_are_refused(changes):
    with pytest.raises(ValidationError):
        settings(b"", **changes)


def in_a_process(server, parquet, before="", **environment):
    """The stage's own code in a process of its own, with the endpoint, home and token of its environment."""
    code = (
        "import sys; from pathlib import Path\n"
        "from diffusion_ladder.data.portraits import dataset as portraits\n"
        "from diffusion_ladder.foundation.errors import UserError\n"
        "from diffusion_ladder.foundation.artifacts import write_json\n"
        "from diffusion_ladder.params.datasets import HubSource\n"
        f"settings = HubSource(**{settings(parquet).model_dump()!r})\n"
        "try:\n    write_json('card.json', portraits.fetch('hub', settings, 0, Path('data/raw/faces')))\n"
        "except UserError as error:\n    sys.exit(str(error))\n"
    )
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    variables |= {"HF_ENDPOINT": server.address, "PYTHONPATH": str(ROOT / "src"), **environment}
    command = ["sh", "-c", f'{before} exec "$0" -c "$1"', sys.executable, code]
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def large_file(server):
    """Have the server offer a file of 24 MB."""
    images = [{"bytes": os.urandom(2_000_000), "path": f"{i}.jpg"} for i in range(12)]
    path = server.folder / "datasets/someone/portraits/resolve/main" / FILE
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "gender": [1, 2] * 6}), path, row_group_size=1)
    server.content = path.read_bytes()
    return server.content


@pytest.mark.slow
def test_a_killed_download_goes_on_and_nothing_is_left_in_the_home_folder(server, tmp_path):
    parquet = large_file(server)
    (tmp_path / "home").mkdir()
    home = {"HOME": str(tmp_path / "home")}
    server.pause = 0.5
    killed = in_a_process(server, parquet, **home)
    downloads = Path("data/downloads")
    while not any(partial.stat().st_size for partial in downloads.glob("*.partial")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    begun = next(downloads.glob("*.partial")).stat().st_size
    assert 0 < begun < len(parquet)
    server.pause = 0
    server.asked.clear()
    resumed = in_a_process(server, parquet, **home)
    output, errors = resumed.communicate()
    assert resumed.returncode == 0, errors
    assert [asked[2] for asked in server.asked] == [None, f"bytes={begun}-"]
    assert "100%" in errors  # the progress bar
    assert f"commit {'c' * 40}" in output
    assert read_json("card.json")["rows"] == 12
    assert not files_below(tmp_path / "home")


@pytest.mark.slow
def test_a_full_disk_is_explained_and_leaves_nothing(server, parquet, tmp_path):
    blocks = len(parquet) // 1024 - 4
    full = in_a_process(server, parquet, before=f"ulimit -f {blocks};", HOME=str(tmp_path))
    _, errors = full.communicate()
    assert full.returncode == 1
    assert (
        "can't be written: File too large; nothing of it was kept: make room and run again" in errors.splitlines()[-1]
    )
    assert not files_below("data")
