"""`make graph` writes the code dependencies in dvc.yaml: from what each stage imports, and nothing else."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, run
from dvc.repo.artifacts import check_name_format

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.graph import read_graph
from diffusion_ladder.foundation.section import dump_yaml, load_yaml
from diffusion_ladder.graph.__main__ import written
from diffusion_ladder.graph.imports import as_folders, files_named_in

MODULE = "src/diffusion_ladder/figures/extra.py"


@pytest.fixture
def copy(tmp_path) -> Path:
    """The project's code and graph in a folder of their own."""
    for name in ("src", "stages"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    return tmp_path


def make_graph(folder):
    return run([sys.executable, "-m", "diffusion_ladder.graph"], folder, PYTHONPATH="src")


def listed(folder, stage):
    """The code among the dependencies of a stage, as they stand in dvc.yaml."""
    definition = load_yaml(folder / "dvc.yaml")["stages"][stage]
    return {path for path in definition.get("do", definition)["deps"] if path.startswith(("src/", "stages"))}


def without_dependencies(text):
    return re.sub(r"deps: \[[^\]]*\]", "deps", text)


def test_dvc_yaml_is_as_make_graph_writes_it():
    parameters, text = load_yaml("params.yaml"), Path("dvc.yaml").read_text()
    assert written(text, parameters, read_graph(parameters)) == text, "dvc.yaml does not fit the code: run `make graph`"


def test_every_model_is_registered_by_a_name_that_dvc_takes():
    rungs, registered = load_yaml("params.yaml")["rungs"], load_yaml("dvc.yaml")["artifacts"]
    assert [entry["path"] for entry in registered.values()] == [f"models/{key}" for key in rungs]
    for (name, entry), rung in zip(registered.items(), rungs.values(), strict=True):
        check_name_format(name)
        assert "_" not in name
        assert (entry["type"], entry["desc"]) == ("model", rung["title"])
        assert {rung["dataset"], rung["network"]["name"]} < set(entry["labels"])
        assert ("class-conditional" in entry["labels"]) == rung["conditional"]


def test_a_new_rung_is_registered(copy):
    parameters = copy / "params.yaml"
    moons = parameters.read_text().split("\n  moons:\n    title")[1].split("\n  mnist_scratch:")[0]
    moons = moons.replace("Part 1: moons", "Sam's moons")
    place = "\n  faces:\n    title"
    parameters.write_text(parameters.read_text().replace(place, f"\n  Sams_moons:\n    title{moons}{place}"))
    make_graph(copy)
    entry = load_yaml(copy / "dvc.yaml")["artifacts"]["sams-moons"]
    assert (entry["path"], entry["desc"]) == ("models/Sams_moons", "Sam's moons")


def test_dvc_yaml_is_short():
    assert len(Path("dvc.yaml").read_text().splitlines()) <= 330


def test_make_graph_is_its_command():
    assert re.search(r"^graph: venv .*\n\tpython -m diffusion_ladder\.graph\n", Path("Makefile").read_text(), re.M)


def test_a_graph_that_fits_is_left_alone(copy):
    before = (copy / "dvc.yaml").stat().st_mtime_ns
    assert make_graph(copy).stdout == "dvc.yaml fits the code already\n"
    assert (copy / "dvc.yaml").stat().st_mtime_ns == before


def test_a_new_module_is_listed_for_those_that_import_it_in_any_way_and_for_no_others(copy):
    before = {stage: listed(copy, stage) for stage in load_yaml("dvc.yaml")["stages"]}
    (copy / MODULE).write_text("import diffusion_ladder.networks.mlp\n")
    scores = copy / "src/diffusion_ladder/figures/scores.py"
    scores.write_text(f"{scores.read_text()}\nfrom diffusion_ladder.figures import extra\n")
    assert make_graph(copy).stdout == "dvc.yaml is written anew\n"
    mlp = {MODULE} | {file for file in files_named_in("src/diffusion_ladder/networks/mlp.py") if "__init__" not in file}
    for stage, code in before.items():
        new = listed(copy, stage) - code
        assert (MODULE in new) == (stage == "compare_scores"), stage
        assert new <= mlp | {"src/diffusion_ladder/networks/mlp.py"}
    text, old = (copy / "dvc.yaml").read_text(), (PROJECT / "dvc.yaml").read_text()
    assert without_dependencies(text) == without_dependencies(old)
    scores.write_text((PROJECT / "src/diffusion_ladder/figures/scores.py").read_text())
    make_graph(copy)
    assert (copy / "dvc.yaml").read_text() == old


def test_imports_for_types_and_those_inside_functions_are_none(copy):
    (copy / MODULE).write_text("")
    style = copy / "src/diffusion_ladder/figures/scores.py"
    style.write_text(
        f"from typing import TYPE_CHECKING\n{style.read_text()}\n"
        "if TYPE_CHECKING:\n    from diffusion_ladder.figures import extra\n\n\n"
        "def draw() -> None:\n    import diffusion_ladder.figures.extra\n"
    )
    assert make_graph(copy).stdout == "dvc.yaml fits the code already\n"


def test_a_folder_stands_for_its_files_where_a_stage_imports_all_of_them(copy, monkeypatch):
    monkeypatch.chdir(copy)
    files = {path.as_posix() for path in Path("src/diffusion_ladder/training").glob("*.py")}
    other = "src/diffusion_ladder/foundation/errors.py"
    assert as_folders({*files, other}) == {"src/diffusion_ladder/training", other}
    some = {*sorted(files)[1:], other}
    assert as_folders(some) == some


def test_a_rung_with_a_score_is_in_the_loop_and_every_rung_in_the_chart(copy):
    text = (copy / "params.yaml").read_text()
    moons = text[text.index("\n  moons:\n    title") :].split("\n  mnist_scratch:")[0]
    spirals = moons.replace("\n  moons:", "\n  spirals:")
    (copy / "params.yaml").write_text(text.replace(moons, moons.replace("    score: {}", "") + spirals))
    assert make_graph(copy).returncode == 0
    graph = read_graph(load_yaml(copy / "params.yaml"), copy / "dvc.yaml")
    assert list(graph["compare_scores"].loop) == ["circles", "spirals"]
    assert list(graph["ideal_denoiser"].loop) == ["circles", "mnist_scratch"]
    assert list(graph["train"].loop) == ["circles", "moons", "spirals", "mnist_scratch", "mnist_diffusers", "faces"]
    charts = {name: chart for each in load_yaml(copy / "dvc.yaml")["plots"][1:3] for name, chart in each.items()}
    assert list(charts["Gradient norm"]["y"]) == [f"reports/training/{name}.tsv" for name in graph["train"].loop]
    metrics = charts["Quality against cost"]["y"]
    assert list(metrics) == [f"reports/tables/{name}/cost.tsv" for name in graph["train"].loop]
    assert metrics["reports/tables/spirals/cost.tsv"] == "energy_distance"
    assert metrics["reports/tables/faces/cost.tsv"] == "kernel_distance"


def test_a_layout_that_it_does_not_know_is_refused_in_one_line(copy):
    text = (copy / "dvc.yaml").read_text()
    (copy / "dvc.yaml").write_text(text.replace("    deps: [", "    deps:  [", 1))
    (copy / MODULE).write_text("")
    ran = make_graph(copy)
    assert ran.returncode == 1
    assert re.fullmatch(r"dvc\.yaml: no place for deps: \[.*: restore its layout\n", ran.stderr)
    (copy / "dvc.yaml").unlink()
    assert make_graph(copy).stderr == "dvc.yaml: No such file or directory\n"


def test_a_renamed_rung_is_read_and_the_loops_are_written_anew(copy):
    values = load_yaml(copy / "params.yaml")
    values["rungs"] = {"rings" if name == "circles" else name: rung for name, rung in values["rungs"].items()}
    (copy / "params.yaml").write_text(dump_yaml(values))
    assert list(read_graph(values)["compare_scores"].loop) == ["moons"]
    assert make_graph(copy).stdout == "dvc.yaml is written anew\n"
    assert list(read_graph(values, copy / "dvc.yaml")["compare_scores"].loop) == ["rings", "moons"]


def test_the_reader_fills_in_each_entry_and_names_what_is_not_there():
    parameters = load_yaml("params.yaml")
    graph = read_graph(parameters)
    assert "data/processed/mnist.safetensors" in graph["train"].listed("deps", "mnist_scratch")
    assert "params.yaml" in graph["report"].listed("deps")
    assert graph["fetch"].everywhere("outs") >= {f"data/raw/{name}" for name in parameters["datasets"]}
    with pytest.raises(UserError, match=r"^train: there is no 'squares'; choose one of circles, moons, "):
        graph["train"].entry("squares")


@pytest.mark.parametrize("score", ["null", None])
def test_a_score_that_is_off_where_the_loop_has_it_is_refused_before_anything_is_built(copy, score):
    text = (copy / "params.yaml").read_text()
    off = "" if score is None else f"    score: {score}"
    (copy / "params.yaml").write_text(text.replace("    score: {}", off, 1))
    ran = run([sys.executable, "stages/check_params.py"], copy, PYTHONPATH="src")
    assert ran.returncode == 1
    assert ran.stderr.startswith("check_params: params.yaml: rungs.circles.score: compare_scores in dvc.yaml goes over")
    assert not (copy / "data/params_checked.txt").exists()
