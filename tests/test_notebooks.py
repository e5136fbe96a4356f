"""The notebooks: they are what their scripts say, executed; they show the common issues; twice, they are the same."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
from conftest import PROJECT

from diffusion_ladder import notebooks
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.graph import read_graph
from diffusion_ladder.foundation.section import load_yaml

sys.path.insert(0, str(PROJECT / "notebooks"))
import set_up

NAMES = [
    "diffusion_process",
    "part_2_1_diffusion_from_scratch_pytorch",
    "part_2_2_huggingface_diffusers",
    "part_3_1_celeb_face",
]
BARS = """# %%
import time
from tqdm import tqdm

for _ in tqdm(range(4), desc="bar"):
    time.sleep({pause})
print("done")
3
"""


def script(name: str) -> Path:
    return PROJECT / "notebooks" / f"{name}.py"


def executed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)


def shown(name: str) -> str:
    """All text that a notebook's cells have written."""
    return "\n".join(sections(name).values())


def sections(name: str) -> dict[str, str]:
    """The text that the cells under each heading have written."""
    found, title = {}, ""
    for cell in executed(name).cells:
        for heading in re.findall(r"^## (.*)", cell.source, re.M) if cell.cell_type == "markdown" else []:
            title = heading
        found[title] = found.get(title, "") + "".join(output.get("text", "") for output in cell.get("outputs", []))
    return found


def needed(name: str) -> dict[str, str]:
    """The artifacts that a notebook's first cell asks for."""
    calls = [node for node in ast.walk(ast.parse(script(name).read_text())) if isinstance(node, ast.Call)]
    (call,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "set_up"]
    return ast.literal_eval(call.args[1])


def test_there_are_the_four_notebooks():
    assert list(notebooks.scripts()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script_executed_from_top_to_bottom(name):
    cells = executed(name).cells
    assert [(cell.cell_type, cell.source) for cell in cells] == [
        (cell.cell_type, cell.source) for cell in jupytext.read(script(name)).cells
    ]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds
    assert sum("image/png" in output.get("data", {}) for cell in code for output in cell.outputs) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_tells_the_device_first_shows_progress_and_counts_parameters(name):
    code = [cell for cell in executed(name).cells if cell.cell_type == "code"]
    assert "".join(output.text for output in code[1].outputs).startswith("device: ")
    assert re.search(r"training: 100%\|█+\| (\d+)/\1$", shown(name), re.M)
    assert re.search(r"[\d,]{5,} parameters", shown(name))
    assert "load_rung" in script(name).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_no_notebook_tells_of_the_machine_or_the_time(name):
    text = (PROJECT / "notebooks" / f"{name}.ipynb").read_text()
    images = re.compile(r'"image/png": "[^"]*"')
    rest = images.sub("", text)
    assert not re.search(r"site-packages|/home/|/work/|/tmp/|it/s|\d\d:\d\d<|Warning", rest)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_holds_no_code_that_belongs_into_the_library(name):
    nodes = list(ast.walk(ast.parse(script(name).read_text())))
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
    assert not re.search(r"\.backward\(|optim\.|\.step\(\)", script(name).read_text())


def test_the_notebooks_are_small_together():
    assert sum((PROJECT / "notebooks" / f"{name}.ipynb").stat().st_size for name in NAMES) < 3_000_000


@pytest.mark.parametrize(
    ("name", "heading", "bite"),
    [
        ("diffusion_process", "`.long()`", "IndexError: tensors used as indices must be long"),
        ("part_2_1_diffusion_from_scratch_pytorch", "`.long()`", "RuntimeError: Expected tensor for argument"),
        ("part_2_1_diffusion_from_scratch_pytorch", "[0, 1] against [-1, 1]", "TypeError: expected uint8 images"),
        ("part_2_1_diffusion_from_scratch_pytorch", "two devices", "Error: "),
        ("part_2_2_huggingface_diffusers", "`.long()`", "IndexError: tensors used as indices must be long"),
        ("part_2_2_huggingface_diffusers", "[0, 1] against [-1, 1]", "the guess is off by"),
        ("part_3_1_celeb_face", "labels 1 and 2 instead of 0 and 1", "IndexError: index out of range"),
    ],
)
def test_a_common_issue_is_shown_where_it_bites(name, heading, bite):
    told = [text for title, text in sections(name).items() if title.startswith("Common issue: ") and heading in title]
    assert len(told) == 1
    assert bite in told[0]


@pytest.mark.parametrize(
    ("name", "rungs"),
    list(zip(NAMES, [["circles"], ["mnist_scratch"], ["mnist_scratch", "mnist_diffusers"], ["faces"]], strict=True)),
)
def test_the_numbers_are_those_of_the_metrics_at_hand(name, rungs):
    text = shown(name)
    for rung in rungs:
        measured = json.loads((PROJECT / f"reports/metrics/{rung}.json").read_text())
        told = [key for key in measured if re.search(rf"^{key} ", text, re.M)]
        assert len(told) == 3
        for key in told:
            line = re.search(rf"^{key} .*", text, re.M)[0]
            assert f"{measured[key]:.4f}" in line, f"{key}: `make notebooks` executes them anew"
            assert f"{measured[f'{key}_floor']:.4f}" in line


def test_a_judge_left_in_training_mode_errs_more_often():
    found = re.findall(r"(eval|train)\(\) +([\d.]+)%", shown("part_2_1_diffusion_from_scratch_pytorch"))
    shares = {mode: float(share) for mode, share in found}
    assert shares["eval"] > 90
    assert shares["train"] < shares["eval"] - 20


def test_a_picture_in_0_to_1_is_guessed_worse():
    right, wrong = re.findall(r"off by ([\d.]+)", shown("part_2_2_huggingface_diffusers"))
    assert float(wrong) > 1.2 * float(right)


@pytest.mark.parametrize("name", NAMES)
def test_the_stages_that_a_notebook_asks_for_make_what_it_reads(name):
    graph = read_graph(load_yaml("params.yaml"))
    artifacts = needed(name)
    for path, target in artifacts.items():
        stage, _, key = target.partition("@")
        made = graph[stage].listed("outs", key) + graph[stage].listed("metrics", key)
        assert any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in made), path
    read = re.findall(r'"((?:data|models|reports)/[\w./]+)"', script(name).read_text())
    assert all(any(path.startswith(known) for known in artifacts) for path in read)


def test_set_up_builds_what_is_missing_and_says_so(monkeypatch, tmp_path, capsys):
    ran = []
    monkeypatch.setattr(set_up.subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PATH", "/bin")
    (tmp_path / "there").touch()
    set_up.set_up(tmp_path, {"there": "a"})
    assert ran == []
    assert capsys.readouterr().out == "Everything is there: nothing to set up.\n"
    set_up.set_up(tmp_path, {"there": "a", "one": "b@x", "two": "b@x", "three": "c"})
    assert ran == [[sys.executable, "-m", "dvc", "repro", "b@x", "c"]]
    assert "Building b@x, c" in capsys.readouterr().out
    assert os.environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)  # stages run in this environment


def test_set_up_installs_missing_packages(monkeypatch, tmp_path, capsys):
    ran = []
    monkeypatch.setattr(set_up.subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr(set_up, "NEEDED", ("sys", "no_such_package"))
    set_up.set_up(tmp_path, {})
    assert ran[0][-2:] == ["-r", "requirements.txt"]
    assert "Missing: no_such_package" in capsys.readouterr().out


@pytest.mark.slow
def test_a_notebook_that_took_longer_has_the_same_bytes(tmp_path):
    texts = []
    for pause in (0.0, 0.15):
        path = tmp_path / "bars.py"
        path.write_text(BARS.format(pause=pause))
        written = json.loads(notebooks.execute(path))
        written["cells"][0]["source"] = ""  # the pause
        texts.append(json.dumps(written))
    assert texts[0] == texts[1]
    assert "bar: 100%|██████████| 4/4" in json.loads(texts[0])["cells"][0]["outputs"][0]["text"][0]
    assert json.loads(texts[0])["cells"][0]["outputs"][-1]["data"]["text/plain"] == ["3"]


@pytest.mark.slow
def test_a_cell_that_fails_is_told_in_a_line(tmp_path):
    (tmp_path / "bad.py").write_text("# %%\n1 / 0\n")
    with pytest.raises(UserError, match=r"bad\.py: a cell fails: ZeroDivisionError: division by zero"):
        notebooks.execute(tmp_path / "bad.py")


def test_an_unknown_notebook_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebooks", "nothing"])
    with pytest.raises(SystemExit, match=r"^there is no notebook nothing; choose of diffusion_process, part_2_1_"):
        notebooks.main()
