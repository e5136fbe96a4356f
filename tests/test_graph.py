"""The graph, asked from DVC: what depends on what, and that every stage declares exactly what it uses."""

import csv
import hashlib
import io
import json
import re
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import networkx
import pytest
import yaml
from conftest import PROJECT, run
from tracing import parameters_in, untraced

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.runtime import Stage
from diffusion_ladder.foundation.section import load_yaml, look_up
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.training import Training
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.report.metrics import CONFUSION, DESCRIPTIONS, FACTS, GAUSSIAN
from diffusion_ladder.report.provenance import provenance_of
from diffusion_ladder.report.stage_graph import read_stages

pytestmark = pytest.mark.slow

GIT_AS_SOMEBODY = ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
VALUES = load_yaml(PROJECT / "params.yaml")
DATASETS, RUNGS = tuple(VALUES["datasets"]), tuple(VALUES["rungs"])
SCORED = [name for name, rung in VALUES["rungs"].items() if "score" in rung]
IDEAL = [name for name, rung in VALUES["rungs"].items() if "ideal_denoiser" in rung]
STAGES = {
    "check_params",
    "compare_schedulers",
    "filter_gender",
    "play",
    "report",
    *(f"{stage}@{key}" for stage in ("fetch", "preprocess", "render_data") for key in DATASETS),
    *(f"train_classifier@{key}" for key in VALUES["classifiers"]),
    *(f"{stage}@{key}" for stage in ("train", "sample", "sweep", "evaluate", "render") for key in RUNGS),
    *(f"compare_scores@{key}" for key in SCORED),
    *(f"ideal_denoiser@{key}" for key in IDEAL),
}

COPIED = {"train": {"src/diffusion_ladder/networks/diffusers_pipeline.py"}}  # code that goes into an output as it is


def fill_in(text: str, key: str, item: object) -> str:
    return re.sub(r"\$\{(.+?)\}", lambda match: str(look_up({"key": key, "item": item}, match[1])), text)


def declared(folder: Path) -> dict[str, dict]:
    """Each stage of dvc.yaml with its loop unrolled, independently of DVC and of the project's reader."""
    parameters = load_yaml(folder / "params.yaml")
    stages = {}
    for name, definition in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].items():
        if "foreach" not in definition:
            stages[name] = definition
            continue
        loop = definition["foreach"]
        if isinstance(loop, str):
            entries = look_up(parameters, loop.strip("${}"))
        else:
            entries = {key: look_up(parameters, entry.strip("${}")) for key, entry in loop.items()}
        for key, item in entries.items():
            stages[f"{name}@{key}"] = json.loads(fill_in(json.dumps(definition["do"]), key, item))
    return stages


def listed_code(folder: Path, definition: dict) -> set[str]:
    """The files of code among a stage's dependencies: a folder stands for all that are in it."""
    code = set()
    for path in (entry for entry in definition["deps"] if entry.split("/")[0] in ("src", "stages")):
        files = (folder / path).rglob("*.py") if (folder / path).is_dir() else [folder / path]
        code |= {str(file.relative_to(folder)) for file in files}
    return code


def imported(folder: Path, stage: str) -> set[str]:
    """The files of the project that a stage had imported at its end."""
    return set(json.loads((folder / "reports/run" / f"{stage}.json").read_text())["imports"])


def loads_by_name(stage: str) -> bool:
    """Whether a stage loads modules that params.yaml names, or all of a kind."""
    loops = ("fetch", "preprocess", "train", "sample", "sweep", "compare_scores", "ideal_denoiser")
    return stage.split("@", maxsplit=1)[0] in loops


@contextmanager
def changed(path: Path, old: str, new: str):
    """A file with one thing replaced, put back afterwards."""
    before = path.read_bytes()
    text = before.decode()
    assert text.count(old) >= 1, f"{old!r} does not stand in {path}"
    path.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def parameter(folder: Path, key: str, value: object):
    """params.yaml with one value replaced, put back afterwards."""
    path = folder / "params.yaml"
    before = path.read_bytes()
    values = yaml.safe_load(before)
    *parents, last = key.split(".")
    look_up(values, ".".join(parents))[last] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    try:
        yield
    finally:
        path.write_bytes(before)


def stale(folder: Path) -> set[str]:
    """The stages that DVC would run because something that they list has changed."""
    status = run(["dvc", "status", "--json"], folder)
    assert status.returncode == 0, status.stderr
    return set(json.loads(status.stdout))


def hashes(folder: Path) -> dict[str, str]:
    """The hash of every output."""
    roots = ("data", "models", "reports")
    files = sorted(file for root in roots for file in (folder / root).rglob("*") if file.is_file())
    outputs = [file for file in files if "run" not in file.relative_to(folder).parts]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in outputs}


def test_the_graph_has_these_stages_and_no_others(smoke):
    listed = run(["dvc", "stage", "list", "--name-only"], smoke).stdout.split()
    assert set(listed) == STAGES


def test_every_stage_has_a_description():
    definitions = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].values()
    for definition in definitions:
        assert definition.get("do", definition)["desc"]


def test_every_stage_takes_the_place_of_its_shell():
    for name, definition in yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"].items():
        command = definition.get("do", definition)["cmd"]
        assert command.removesuffix(" ${key}") == f"exec env PYTHONPATH=src python stages/{name}.py"


def test_nothing_is_left_to_do_after_a_run(smoke):
    assert stale(smoke) == set()
    again = run(["dvc", "repro"], smoke)
    assert "up to date" in again.stdout + again.stderr


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_lists_exactly_the_files_that_it_imports(smoke, stage):
    """Which modules a name in params.yaml brings depends on the rung: the lists hold those of all rungs."""
    listed, used = listed_code(smoke, declared(smoke)[stage]), imported(smoke, stage)
    missing, idle = used - listed, listed - used
    assert not missing, f"{stage} imports {sorted(missing)}, which dvc.yaml does not list for it: run `make graph`"
    if stage != "report" and not loads_by_name(stage):  # the report depends on all code, because it tells its hash
        assert not idle, f"{stage} does not import {sorted(idle)}, which dvc.yaml lists for it: run `make graph`"


@pytest.mark.parametrize("loop", sorted({stage.split("@")[0] for stage in STAGES if loads_by_name(stage)}))
def test_a_loop_lists_no_file_that_none_of_its_entries_imports(smoke, loop):
    entries = {name: stage for name, stage in declared(smoke).items() if name.split("@")[0] == loop}
    listed = set().union(*(listed_code(smoke, stage) for stage in entries.values()))
    used = set().union(*(imported(smoke, stage) for stage in entries), COPIED.get(loop, set()))
    assert listed == used, f"{sorted(listed ^ used)}: run `make graph`"


def test_a_stage_lists_exactly_the_parameters_that_it_reads(smoke):
    for stage, definition in declared(smoke).items():
        record = json.loads((smoke / "reports/run" / f"{stage}.json").read_text())
        assert set(definition.get("params", [])) == set(record["parameters"]), stage


def test_a_parameter_that_is_not_listed_can_not_be_read():
    stage = Stage("sample", "circles")
    assert stage.section("sampling", Sampling).count > 0
    assert stage.parameter("rungs.circles.sampling.count", int) > 0
    for key in ("rungs.moons.sampling", "every_rung.training", "rungs.circles", ""):
        with pytest.raises(ParameterError, match=f"^sample@circles reads the parameter {key}, .*not list"):
            stage.parameter(key, object)
    with pytest.raises(ParameterError, match=r"reads the parameter every_rung\.training, .*not list"):
        stage.section("training", Training)


def test_a_parameter_is_of_the_type_that_is_asked_for():
    stage = Stage("sample", "circles")
    assert stage.parameter("rungs.circles.schedulers.comparison", str) == "ddpm"
    with pytest.raises(ParameterError, match=r"^params\.yaml: seed: Input should be a valid string \(found 0\)$"):
        stage.parameter("seed", str)


def test_a_comment_in_a_figure_module_reruns_only_the_figures(smoke):
    path = smoke / "src/diffusion_ladder/figures/samples.py"
    with changed(path, "\n", "\n# A comment.\n"):
        assert stale(smoke) == {
            *(f"render@{model}" for model in RUNGS),
            *(f"render_data@{dataset}" for dataset in DATASETS),
            *(f"ideal_denoiser@{rung}" for rung in IDEAL),
            "report",  # which tells the hash of the code
        }


ANYWHERE = {"check_params", "report"}  # which depend on all sections and on all code


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        (
            "figures",
            {
                *(f"render@{rung}" for rung in RUNGS),
                *(f"render_data@{dataset}" for dataset in DATASETS),
                *(f"ideal_denoiser@{rung}" for rung in IDEAL),
            },
        ),
        ("training", {f"train@{rung}" for rung in RUNGS}),
        ("sweep", {f"sweep@{rung}" for rung in RUNGS}),
        (
            "evaluation",
            {*(f"evaluate@{rung}" for rung in RUNGS), *(f"ideal_denoiser@{rung}" for rung in IDEAL)},
        ),
        ("ideal_denoiser", {f"ideal_denoiser@{rung}" for rung in IDEAL}),
        ("score", {f"compare_scores@{rung}" for rung in SCORED}),
        ("scheduler_comparison", {"compare_schedulers"}),
        ("quality", set()),
        ("rung", set()),
    ],
)
def test_a_new_key_in_a_section_reruns_only_who_reads_it(smoke, module, stages):
    """What follows from those runs again as far as their outputs change."""
    path = smoke / f"src/diffusion_ladder/params/{module}.py"
    with changed(path, "\n\n\nclass ", "\n\n\nANOTHER_KEY = 1\n\n\nclass "):
        assert stale(smoke) == stages | ANYWHERE


@pytest.mark.parametrize("module", ["consistency", "whole"])
def test_a_new_check_of_the_whole_reruns_only_the_check(smoke, module):
    with changed(smoke / f"src/diffusion_ladder/params/{module}.py", "\n\n\ndef ", "\n\n\nLIMIT = 1\n\n\ndef "):
        assert stale(smoke) == ANYWHERE


def test_a_value_of_every_rung_reruns_what_reads_it_of_every_rung(smoke):
    with parameter(smoke, "every_rung.sweep.seeds", 3):
        assert stale(smoke) == {f"sweep@{rung}" for rung in RUNGS} | ANYWHERE


def test_other_sampling_steps_retrain_nothing(smoke):
    with parameter(smoke, "rungs.faces.sampling.steps", 3):
        assert stale(smoke) == {"check_params", "sample@faces", "sweep@faces", "play", "report"}


def test_another_schedule_retrains_that_rung_alone(smoke):
    with parameter(smoke, "rungs.faces.schedule.beta_end", 0.013):
        assert stale(smoke) == {"check_params", "train@faces", "play", "report"}


def test_a_change_to_the_unet_does_not_retrain_the_circles(smoke):
    with changed(smoke / "src/diffusion_ladder/networks/unet.py", "\n", "\n# A comment.\n"):
        assert stale(smoke) == {
            "train@mnist_scratch",
            "sample@mnist_scratch",
            "sweep@mnist_scratch",
            "play",
            "report",
        }  # which quotes its code


def test_an_accepted_parameter_reruns_only_what_reads_it(smoke, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(smoke, copy, symlinks=True)
    before = hashes(copy)
    with parameter(copy, "rungs.circles.figures.panels", 9):
        ran = run(["dvc", "repro"], copy)
    assert ran.returncode == 0, ran.stderr
    rerun = {"check_params", "render@circles", "play", "report"}  # play reads of all rungs how they are sampled from
    assert set(re.findall(r"Running stage '(.+?)'", ran.stdout)) == rerun
    different = {path for path, value in hashes(copy).items() if before.get(path) != value}
    assert different
    assert all(path.startswith(("reports/figures/circles/", "reports/index", "reports/README")) for path in different)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("rungs.circles.schedule.T", 0, "rungs.circles.schedule.T"),
        ("rungs.circles.schedule.beta_end", 1e-6, "beta_end = 1e-06 is below beta_start"),
        ("rungs.circles.training.stepz", 5, "rungs.circles.training.stepz: unknown key"),
        ("rungs.circles.sampling.sampler", "dpm", "rungs.circles.sampling.sampler"),
        ("rungs.faces.sampling.steps", 5000, "5000 is more than T = 1000"),
        ("every_rung.sampling.seeds", 1, "every_rung.sampling.seeds"),
        ("rungs.moons.dataset", "mnist", "mlp can't learn digits"),
        ("seed", "zero", "seed"),
    ],
)
def test_an_impossible_parameter_stops_the_run_and_touches_no_output(smoke, key, value, complaint):
    before, checked = hashes(smoke), smoke / "data/params_checked.txt"
    constant = checked.read_bytes()
    with parameter(smoke, key, value) if "." in key else changed(smoke / "params.yaml", "seed: 0", f"seed: {value}"):
        refused = run(["dvc", "repro"], smoke)
    assert refused.returncode != 0
    lines = [line for line in (refused.stdout + refused.stderr).splitlines() if complaint in line]
    assert len(lines) == 1
    assert "Traceback" not in refused.stdout + refused.stderr
    assert checked.read_bytes() == constant
    assert hashes(smoke) == before


def test_the_lock_holds_no_path_of_this_machine(smoke):
    assert str(smoke) not in (smoke / "dvc.lock").read_text()
    for path in hashes(smoke):
        assert str(smoke).encode() not in (smoke / path).read_bytes(), path


def test_the_same_work_gives_the_same_bytes_under_another_hash_seed_locale_zone_and_umask(builds):
    assert (builds["smoke"] / "dvc.lock").read_text() == (builds["elsewhere"] / "dvc.lock").read_text()
    assert hashes(builds["smoke"]) == hashes(builds["elsewhere"])


def test_threads_are_fixed_and_recorded(builds):
    for folder in builds.values():
        threads = yaml.safe_load((folder / "params.yaml").read_text())["runtime"]["threads"]
        for stage, definition in declared(folder).items():
            record = json.loads((folder / "reports/run" / f"{stage}.json").read_text())
            assert record["threads"] == (threads if "runtime" in definition.get("params", []) else 1), stage


def test_the_report_tells_the_hashes_of_the_lock(smoke):
    lock = yaml.safe_load((smoke / "dvc.lock").read_text())["stages"]
    locked = {entry["path"]: entry["md5"] for stage in lock.values() for entry in stage.get("deps", [])}
    locked |= {entry["path"]: entry["md5"] for stage in lock.values() for entry in stage.get("outs", [])}
    told = {item.path: item.md5 for item in provenance_of(smoke, load_parameters(smoke / "params.yaml")).hashes}
    assert {"src/diffusion_ladder", "stages", "data/processed/moons.safetensors", "models/faces"} <= set(told)
    assert told == {path: locked[path] for path in told}
    page = (smoke / "reports/index.html").read_text()
    assert all(md5 in page for md5 in told.values())


def test_every_number_in_the_report_s_tables_stands_in_an_artifact_or_is_a_parameter(smoke):
    titles = " ".join([*FACTS.values(), *(description.title for description in DESCRIPTIONS.values()), "SHA-256 MD5"])
    assert untraced((smoke / "reports/index.html").read_text(), smoke, parameters_in(smoke), titles) == []


def test_the_report_names_the_preset(smoke):
    assert "the smoke preset, unchanged" in (smoke / "reports/index.html").read_text()


def test_every_model_has_its_card_beside_its_weights(smoke):
    for model in RUNGS:
        card = (smoke / f"models/{model}/README.md").read_text()
        assert card == (smoke / f"reports/models/{model}/README.md").read_text()
        assert huggingface_hub.ModelCard(card).data.eval_results[0].dataset_split == "test"


def test_the_graph_in_the_report_is_that_of_dvc(smoke):
    dot = run(["dvc", "dag", "--dot"], smoke).stdout
    edges = [tuple(name.split("@")[0] for name in pair) for pair in re.findall(r'"(\S+)" -> "(\S+)"', dot)]
    reduced = networkx.transitive_reduction(networkx.DiGraph(edges))
    stages = read_stages(smoke)
    assert {(name, stage.name) for stage in stages for name in stage.needs} == set(reduced.edges)


def test_another_graph_makes_another_report(smoke):
    assert (PROJECT / "stages/graph.yaml").read_bytes() == (PROJECT / "dvc.yaml").read_bytes()
    with changed(smoke / "stages/graph.yaml", "\n", "\n# A comment.\n"):
        assert stale(smoke) == {"report"}


def test_verify_finds_a_rotten_output_that_dvc_calls_up_to_date(smoke, tmp_path):
    assert run([sys.executable, "-m", "diffusion_ladder.verify"], smoke).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(smoke, copy, symlinks=True)
    weights = copy / "models/circles/model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    (copy / "reports/metrics/moons.json").unlink()
    verified = run([sys.executable, "-m", "diffusion_ladder.verify"], copy)
    assert verified.returncode == 1
    assert "models/circles is not what train@circles wrote" in verified.stdout
    assert "reports/metrics/moons.json is missing" in verified.stdout
    assert len(verified.stdout.splitlines()) == 2


def test_verify_finds_what_has_rotted_in_the_cache_and_names_what_mends_it(smoke, tmp_path):
    """Altered, cut short or missing, while the working tree is whole and DVC sees nothing to do."""
    copy = tmp_path / "copy"
    shutil.copytree(smoke, copy, symlinks=True)
    outputs = {
        output["path"]: output["md5"]
        for entry in yaml.safe_load((copy / "dvc.lock").read_text())["stages"].values()
        for output in entry["outs"]
    }

    def kept(path):
        md5 = outputs[path]
        return copy / ".dvc/cache/files/md5" / md5[:2] / md5[2:]

    altered, cut, folder = (
        kept(path) for path in ("data/samples/moons.safetensors", "data/processed/mnist.safetensors", "models/circles")
    )
    weights = next(each["md5"] for each in json.loads(folder.read_text()) if each["relpath"] == "model.safetensors")
    missing = copy / ".dvc/cache/files/md5" / weights[:2] / weights[2:]
    content = altered.read_bytes()
    for path, damaged in ((altered, content[:-1] + b"!"), (cut, cut.read_bytes()[:100])):
        path.chmod(0o644)
        path.write_bytes(damaged)
    missing.unlink()
    verified = run([sys.executable, "-m", "diffusion_ladder.verify"], copy)
    assert verified.returncode == 1
    lines = verified.stdout.splitlines()
    assert len(lines) == 3
    for path, what in ((altered, "data/samples/moons.safetensors, "), (cut, "data/processed/mnist.safetensors, ")):
        assert any(f"copy of {what}{path}, was altered" in line for line in lines)
    assert any(f"copy of models/circles/model.safetensors, {missing}, is missing" in line for line in lines)
    for line in lines:
        assert run(["sh", "-c", line.split("`")[1]], copy).returncode == 0, line
    assert run([sys.executable, "-m", "diffusion_ladder.verify"], copy).returncode == 0
    assert altered.read_bytes() == content


def test_experiments_run_alone_and_queued_in_a_fresh_clone(smoke, tmp_path):
    """The README's commands, in a Git repository with the smoke preset and a build already in DVC's cache."""
    clone = tmp_path / "clone"
    shutil.copytree(smoke, clone, symlinks=True)
    (clone / ".dvc/config.local").unlink()
    for command in (["git", "init", "-q"], ["git", "add", "-A"], [*GIT_AS_SOMEBODY, "commit", "-qm", "smoke"]):
        assert run(command, clone).returncode == 0
    key = "rungs.circles.schedule.T"
    alone = run(["dvc", "exp", "run", "--name", "alone", "-S", f"{key}=250"], clone)
    assert alone.returncode == 0, alone.stderr[-2000:]
    assert set(re.findall(r"Running stage '(.+?)'", alone.stdout)) >= {"train@circles", "evaluate@circles"}
    assert not re.search(r"Running stage 'train@(?!circles)", alone.stdout)
    assert run(["git", "checkout", "-q", "."], clone).returncode == 0
    queued = run(["dvc", "exp", "run", "--queue", "-S", f"{key}=100,500"], clone)
    assert queued.returncode == 0, queued.stderr[-2000:]
    run(["dvc", "queue", "start"], clone)
    for _ in range(100):
        status = run(["dvc", "queue", "status"], clone).stdout
        if status.count("Success") + status.count("Failed") == 2:
            break
        time.sleep(3)
    assert status.count("Success") == 2, status
    shown = run(["dvc", "exp", "show", "--csv"], clone).stdout
    rows = list(csv.DictReader(io.StringIO(shown)))
    distances = {row[key]: row["reports/metrics/circles.json:wasserstein_2"] for row in rows if row["Experiment"]}
    assert set(distances) == {"250", "100", "500"}
    assert len(set(distances.values())) == 3


def test_dvc_shows_the_logs_of_training_as_charts(smoke):
    shown = json.loads(run(["dvc", "plots", "show", "--json"], smoke).stdout)
    assert "errors" not in shown
    (picture,) = shown["data"].pop("reports/across/ladder.png")
    assert picture["type"] == "image"
    charts = {name: chart["content"]["data"]["values"] for name, (chart,) in shown["data"].items()}
    logs = {model: (smoke / f"reports/training/{model}.tsv").read_text().splitlines()[1:] for model in RUNGS}
    for model, rows in logs.items():
        assert [point["loss"] for point in charts[f"reports/training/{model}.tsv"]] == [
            row.split("\t")[2] for row in rows
        ]
        bins = charts[f"dvc.yaml::reports/training/{model}.tsv"]
        assert {point["field"] for point in bins} == {f"loss_bin_{number}" for number in range(1, 9)}
        assert len(bins) == 8 * len(rows)
    assert len(charts["Gradient norm"]) == sum(map(len, logs.values()))
    tables = [(smoke / f"reports/tables/{name}/cost.tsv").read_text().splitlines()[1:] for name in RUNGS]
    assert len(charts["Quality against cost"]) == sum(map(len, tables))


def test_the_report_knows_every_metric_that_is_measured(smoke):
    for path in {*(smoke / "reports/metrics").rglob("*.json")} - {smoke / "reports/metrics/schedulers.json"}:
        for key in json.loads(path.read_text()):
            name = re.sub(r"(_floor|_ceiling)?(_std)?$", "", key)
            known = {key, name} & {*DESCRIPTIONS, *FACTS} or CONFUSION.fullmatch(key) or GAUSSIAN.fullmatch(key)
            assert known, f"{path.name}: {key}"
