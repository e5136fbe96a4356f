"""Publishing, to a local server that speaks as much of the hub's interface as an upload and a download need."""

import base64
import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
from conftest import PROJECT, serving
from test_model_cards import small
from test_pipelines import SAVED

from diffusion_ladder import command_line, publish
from diffusion_ladder.foundation.artifacts import write_json, write_text
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.report.content import Reader
from diffusion_ladder.report.model_cards import cards_of
from diffusion_ladder.rungs import save_rung

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # from the hub's own client

REPOSITORY, COMMIT = "someone/faces", "c" * 40
SENT = [
    *("DATA_LICENCE.md", "LICENSE", "README.md", "config.json", "diffusion_pytorch_model.safetensors"),
    *("model_index.json", "pipeline.py", "rung.json", "samples.png", "scheduler_config.json"),
]


class Hub(http.server.BaseHTTPRequestHandler):
    """Repositories that are made, files that are announced, stored and committed, and what can be had of them."""

    def do_POST(self):
        state, body = self.server.state, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.asked.append(self.path)
        if state.status:
            return self.answer({"error": "no"}, state.status)
        if self.headers.get("Authorization") != "Bearer hf_token":
            return self.answer({"error": "who are you?"}, 401)
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            told = json.loads(body)
            state.repositories[f"someone/{told['name']}"] = told
            return self.answer({"url": f"{state.address}/someone/{told['name']}"})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            return self.answer(
                {"files": [entry | {"uploadMode": mode_of(entry["path"]), "shouldIgnore": False} for entry in files]}
            )
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            href = f"{state.address}/storage/"
            actions = [entry | {"actions": {"upload": {"href": href + entry["oid"]}}} for entry in objects]
            return self.answer({"transfer": "basic", "objects": actions})
        if self.path == f"/api/models/{REPOSITORY}/commit/main":
            self.commit([json.loads(line) for line in body.splitlines()])
            url = f"{state.address}/{REPOSITORY}/commit/{COMMIT}"
            return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
        return self.answer({"error": "not here"}, 404)

    def commit(self, lines):
        state = self.server.state
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                state.message = value["summary"]
            elif line["key"] == "file":
                state.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                state.files[value["path"]] = state.stored[value["oid"]]

    def do_PUT(self):
        data, oid = self.rfile.read(int(self.headers["Content-Length"])), self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.state.stored[oid] = data
        self.answer({})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        state = self.server.state
        if re.fullmatch(rf"/api/models/{REPOSITORY}(/revision/.*)?", self.path):
            siblings = [{"rfilename": name} for name in sorted(state.files)]
            return self.answer({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
        if self.path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            kind = {"type": "file", "oid": "0" * 40}
            return self.answer([{"path": name, "size": len(data), **kind} for name, data in state.files.items()])
        name = self.path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")[2]
        if name not in state.files:
            return self.answer({"error": "not here"}, 404, {"X-Error-Code": "EntryNotFound"})
        data = state.files[name]
        return self.answer(data, 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def answer(self, value, status=200, headers=None):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def mode_of(path):
    return "lfs" if path.endswith((".safetensors", ".png")) else "regular"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What a build leaves of two rungs, as far as it is sent."""
    root, parameters = tmp_path_factory.mktemp("built"), load_parameters(PROJECT / "params.yaml")
    (root / "models").mkdir()
    for key in ("faces", "moons"):
        rung, classes = small(key)
        save_rung(rung, root / "models" / key, {"class_names": classes}, SAVED)
        (root / f"models/{key}/README.md").write_text("an old card")
        (root / f"reports/figures/{key}").mkdir(parents=True)
        shutil.copy(PROJECT / f"reports/figures/{key}/samples.png", root / f"reports/figures/{key}/samples.png")
        write_json(
            root / f"reports/data/{rung.dataset}.json",
            json.loads((PROJECT / f"reports/data/{rung.dataset}.json").read_text()),
        )
    for key, card in cards_of(Reader(root, parameters).report()).items():
        write_text(root / f"reports/models/{key}/README.md", card)
    for name in ("LICENSE", "params.yaml"):
        shutil.copy(PROJECT / name, root / name)
    return root


@pytest.fixture
def project(built, tmp_path, monkeypatch):
    shutil.copytree(built, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def hub(monkeypatch):
    with serving(Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        state = SimpleNamespace(address=address, asked=[], repositories={}, stored={}, files={}, message="", status=0)
        server.state = state
        point_at(monkeypatch, address)
        yield state


def point_at(monkeypatch, address, token="hf_token"):
    """What the variables HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET do before the client is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "no such token")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["publish.py", *arguments])
    command_line.run(publish.main)


def refusal(monkeypatch, *arguments):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, *arguments)
    assert "\n" not in str(end.value.code)
    return str(end.value.code)


def test_everything_that_a_model_needs_is_committed_at_once(project, hub, monkeypatch, capsys):
    call(monkeypatch, "rungs/faces", "--to", REPOSITORY, "--private")
    assert f"{hub.address}/{REPOSITORY}/commit/{COMMIT}" in capsys.readouterr().out
    assert hub.repositories[REPOSITORY]["visibility"] == "private"
    assert sorted(hub.files) == SENT
    for name in SENT:
        if name not in ("README.md", "DATA_LICENCE.md", "LICENSE", "samples.png"):
            assert hub.files[name] == (project / "models/faces" / name).read_bytes()
    assert hub.files["samples.png"] == (project / "reports/figures/faces/samples.png").read_bytes()
    licence = hub.files["DATA_LICENCE.md"].decode()
    assert "- Licence: CC BY 4.0\n" in licence
    assert "https://creativecommons.org/licenses/by/4.0/" in licence
    card = huggingface_hub.ModelCard(hub.files["README.md"].decode())
    assert f'from_pretrained("{REPOSITORY}", trust_remote_code=True)' in card.text
    assert "![Samples, none of them chosen](samples.png)" in card.text
    assert '"models/' not in card.text
    assert (card.data.library_name, card.data.license) == ("diffusers", "mit")
    assert sum(path.endswith("/commit/main") for path in hub.asked) == 1


@pytest.mark.slow
def test_what_was_published_is_loaded_from_the_hub_by_the_code_in_its_card(project, hub, monkeypatch, tmp_path):
    call(monkeypatch, "faces", "--to", REPOSITORY)
    code = re.findall(r"```python\n(.*?)```", hub.files["README.md"].decode(), re.S)[0]
    code = code.replace("num_inference_steps=50", "num_inference_steps=2")
    shutil.copy(PROJECT / "src/diffusion_ladder/torchvision_import.py", tmp_path)  # a repair of the environment
    begin = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n"
    begin += "from torchvision_import import repair_torchvision; repair_torchvision()\n"
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HF_"))}
    variables |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-S", "-W", "ignore", "-c", begin + code]
    ran = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert (tmp_path / "sample.png").is_file()


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody(project, hub, monkeypatch, capsys):
    call(monkeypatch, "models/faces", "--to", REPOSITORY, "--dry-run")
    said = capsys.readouterr().out
    assert re.findall(r"^ +[\d,]+  (\S+)$", said, re.M) == sorted(SENT)
    assert f"{(project / 'models/faces/pipeline.py').stat().st_size:,}  pipeline.py" in said
    assert "CC BY 4.0" in said
    assert said.endswith("nothing was sent (--dry-run)\n")
    assert not hub.asked


@pytest.mark.parametrize("licence", ["not stated", ""])
def test_data_without_a_licence_are_refused_unless_told_otherwise(project, hub, monkeypatch, licence):
    path = project / "reports/data/faces.json"
    write_json(path, json.loads(path.read_text()) | {"licence": licence})
    assert "without a stated licence" in refusal(monkeypatch, "faces", "--to", REPOSITORY)
    assert "without a stated licence" in refusal(monkeypatch, "faces", "--to", REPOSITORY, "--dry-run")
    assert not hub.asked
    call(monkeypatch, "faces", "--to", REPOSITORY, "--without-data-licence")
    assert sorted(hub.files) == SENT


def test_a_network_from_scratch_is_sent_with_a_card_that_fetches_it(project, hub, monkeypatch):
    files = publish.upload_of("moons", "someone/moons").files
    card = files["README.md"].decode()
    assert 'diffusion_ladder.load(snapshot_download("someone/moons"))' in card
    assert "from huggingface_hub import snapshot_download\n" in card
    compile(re.findall(r"```python\n(.*?)```", card, re.S)[0], "card", "exec")


def test_what_is_missing_is_named(project, hub, monkeypatch):
    to = ("--to", REPOSITORY)
    assert "there is no rung nobody, but circles" in refusal(monkeypatch, "nobody", *to)
    assert "models/circles holds no trained model" in refusal(monkeypatch, "circles", *to)
    (project / "reports/figures/faces/samples.png").unlink()
    assert "reports/figures/faces/samples.png is missing: `dvc repro` writes it" in refusal(monkeypatch, "faces", *to)
    assert refusal(monkeypatch, "faces", "--to", "nobody") == "2"
    assert not hub.asked


def test_each_refusal_of_the_hub_is_explained(project, hub, monkeypatch):
    to = ("faces", "--to", REPOSITORY)
    for status, said in ((401, "a valid token"), (403, "may not write there"), (422, "the hub answered 422")):
        hub.status = status
        assert said in refusal(monkeypatch, *to)
    hub.status = 0
    point_at(monkeypatch, hub.address, token="hf_other")
    assert "the hub wants a valid token: log in" in refusal(monkeypatch, *to)
    assert not hub.files
    point_at(monkeypatch, "http://127.0.0.1:1")
    assert "no connection to the hub" in refusal(monkeypatch, *to)
