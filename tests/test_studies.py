"""Studies: their files, the runs that answer them, the verdict, the pages, and DVC's queue itself."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import torch
import yaml
from conftest import PROJECT, run
from dvc.utils.hydra import apply_overrides
from scipy import stats

from diffusion_ladder.evaluation.comparison import compare, corrected
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.overlays import in_hydra
from diffusion_ladder.report.studies import StudyResults, study_chapters
from diffusion_ladder.report.study_page import write_study
from diffusion_ladder.study import __main__ as commands
from diffusion_ladder.study import queue
from diffusion_ladder.study.estimate import in_all, seconds_of
from diffusion_ladder.study.experiments import table_of
from diffusion_ladder.study.question import in_waves, load_study, overrides_of, run_of, runs_of
from diffusion_ladder.study.results import training_of
from diffusion_ladder.training.session import checkpoints_of

PARAMETERS = load_yaml("params.yaml")
STUDIES = sorted(path.stem for path in Path("studies").glob("*.yaml"))

# The test that makes the verdict


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_comparison_is_that_of_scipy(paired, seed):
    random = numpy.random.default_rng(seed)
    a = random.normal(1.0, 0.3, 4)
    b = a + random.normal(0.2, 0.1, 4) if paired else random.normal(1.4, 0.9, 6)
    found = compare(a, b, paired)
    theirs = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.effect == pytest.approx(a.mean() - b.mean())
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.effect / found.standard_error == pytest.approx(theirs.statistic)
    assert found.bound == pytest.approx(max(abs(interval.low), abs(interval.high)))


def test_one_run_on_a_side_tells_nothing():
    assert compare([1.0], [2.0, 3.0], paired=False) is None
    assert compare([1.0], [2.0], paired=True) is None
    with pytest.raises(ValueError, match="3 runs can't be paired with 2"):
        compare([1, 2, 3], [1, 2], paired=True)


def test_runs_without_any_deviation():
    assert compare([0.1 + 0.2] * 3, [0.3] * 3, paired=False).p_value == 1
    assert compare([1.0] * 3, [2.0] * 3, paired=False).p_value == 0


def test_holms_correction_of_his_own_example():
    """Worked by hand: 3 x 0.01, then 2 x 0.02, then never below the one before."""
    assert corrected([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert corrected([0.03, 0.5, 0.04]) == pytest.approx([0.09, 0.5, 0.09])
    assert corrected([0.9, 0.8]) == [1.0, 1.0]
    assert corrected([]) == []


def test_false_findings_are_rare_when_many_variants_are_tried():
    """Ten variants that do nothing, 400 times: some difference is found in about one study out of twenty."""
    random, found = numpy.random.default_rng(0), 0
    for _ in range(400):
        baseline = random.normal(size=5)
        p_values = corrected([compare(random.normal(size=5), baseline, paired=False).p_value for _ in range(10)])
        found += min(p_values) < 0.05
    assert found < 0.09 * 400


# Study files


def study_in(folder, monkeypatch, **changes):
    """A study file of two variants in a folder that is then the working directory."""
    asked = {
        "question": "Is it?",
        "held_fixed": "all.",
        "rungs": ["circles"],
        "metrics": ["wasserstein_2"],
        "seeds": [0, 1],
        "test": "welch",
        "baseline": "plain",
        "variants": {"plain": {}, "long": {"training.steps": 100}},
    }
    (folder / "studies").mkdir()
    values = {key: value for key, value in (asked | changes).items() if value is not None}
    (folder / "studies/asked.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.chdir(folder)
    return load_study("asked")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"baseline": "other"}, "baseline: 'other' is none of plain, long"),
        ({"variants": None}, "there must be variants, or a grid, and not both"),
        ({"seeds": [1, 1]}, "seeds: [1, 1] holds one twice"),
        ({"variants": {"plain": {}, "pl,ain": {}, "pl ain": {}}}, "are the same once reduced"),
        ({"test": "means"}, "test: "),
        ({"colour": "red"}, "colour: unknown key"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_in_one_line(tmp_path, monkeypatch, changes, complaint):
    with pytest.raises(ParameterError, match=re.escape(complaint)) as refusal:
        study_in(tmp_path, monkeypatch, **changes)
    assert str(refusal.value).startswith("studies/asked.yaml: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"rungs": ["squares"]}, "rungs: there is no squares, but circles"),
        ({"variants": {"plain": {}, "odd": {"training.stepz": 3}}}, "odd: rungs.circles.training.stepz: unknown key"),
        ({"overrides": {"sampling.sampler": "ddpm"}}, "choose two samplers"),
    ],
)
def test_a_study_that_params_yaml_does_not_allow_is_refused_before_anything_runs(
    tmp_path, monkeypatch, changes, complaint
):
    study = study_in(tmp_path, monkeypatch, **changes)
    with pytest.raises(ParameterError, match=re.escape(complaint)) as refusal:
        runs_of("asked", study, PARAMETERS)
    assert str(refusal.value).startswith("studies/asked.yaml: ")


def test_an_unknown_study_is_told_which_there_are():
    with pytest.raises(ParameterError, match=r"there is no study colours; there are: .*schedules"):
        load_study("colours")


def test_a_grid_is_all_combinations(tmp_path, monkeypatch):
    study = study_in(
        tmp_path,
        monkeypatch,
        variants=None,
        grid={"schedule.T": [50, 250], "schedule.beta_end": [0.01, 0.02]},
        baseline="T = 50, beta_end = 0.02",
    )
    assert [*study.changes] == [f"T = {T}, beta_end = {end}" for T in (50, 250) for end in (0.01, 0.02)]
    assert study.changes["T = 250, beta_end = 0.01"] == {"schedule.T": 250, "schedule.beta_end": 0.01}


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_fits_params_yaml(name):
    study = load_study(name)
    for rung in study.rungs:
        runs = [run_of(name, study, PARAMETERS, study.seeds[-1], rung, each) for each in study.changes.items()]
        assert len({each.name for each in runs}) == len(runs)
        assert len({json.dumps(each.values, sort_keys=True, default=str) for each in runs}) == len(runs)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("recipe_points", "AdamW"), ("recipe_points", "min-SNR weights"), ("recipe_faces", "all timesteps alike")],
)
def test_dvc_makes_of_the_overrides_what_the_study_was_checked_with(name, variant, tmp_path):
    study = load_study(name)
    chosen = run_of(name, study, PARAMETERS, 1, study.rungs[0], (variant, study.changes[variant]))
    shutil.copy("params.yaml", tmp_path / "params.yaml")
    options = [f"{key}={in_hydra(value)}" for key, value in overrides_of(chosen, PARAMETERS).items()]
    apply_overrides(tmp_path / "params.yaml", options)
    assert load_yaml(tmp_path / "params.yaml") == chosen.values


def test_the_training_seed_changes_nothing_but_itself(tmp_path, monkeypatch):
    runs = runs_of("asked", study_in(tmp_path, monkeypatch), PARAMETERS)
    assert [each.name for each in runs] == [f"asked-circles-{v}-{s}" for s in (0, 1) for v in ("plain", "long")]
    assert runs[2].changes == {"rungs.circles.training.seed": 1}


def test_runs_that_share_a_training_wait_for_the_one_that_makes_it(tmp_path, monkeypatch):
    variants = {
        "plain": {},
        "more": {"sampling.steps": 20},
        "long": {"training.steps": 9},
        "both": {"training.steps": 9, "sampling.steps": 20},
    }
    study = study_in(tmp_path, monkeypatch, variants=variants)
    monkeypatch.chdir(PROJECT)
    runs = runs_of("asked", study, PARAMETERS)
    first, second = in_waves(runs, {each.name: training_of(each) for each in runs})
    assert [each.variant for each in first] == ["plain", "long"] * 2
    assert [each.variant for each in second] == ["more", "both"] * 2
    (only,) = in_waves(first, {each.name: training_of(each) for each in first})
    assert only == first


def test_the_estimate_grows_with_the_steps_and_shrinks_with_the_workers(tmp_path, monkeypatch):
    study = study_in(tmp_path, monkeypatch, seeds=[0], variants={"plain": {}, "long": {"training.steps": 7500}})
    plain, long = runs_of("asked", study, PARAMETERS)
    assert seconds_of(plain, PARAMETERS, trained=False) is None
    for stage, seconds in {"train": 30, "sample": 4, "sweep": 2, "evaluate": 6}.items():
        write_json(tmp_path / f"reports/run/{stage}@circles.json", {"seconds": seconds, "threads": 2})
    first, second = (seconds_of(each, PARAMETERS, trained=False) for each in (plain, long))
    assert second - first == pytest.approx(60)  # three times the steps: 60 s more
    assert first - seconds_of(plain, PARAMETERS, trained=True) == pytest.approx(30)
    assert in_all([first, second], 2) == (first + second) / 2
    assert in_all([first, None], 2) is None


# The verdict


def results_of(values, metric="wasserstein_2", test="welch", floor=0.05, **changes):
    """results.json of a study with these numbers for each variant, the baseline first."""
    return {
        "study": "asked",
        "question": "Is it so?",
        "held_fixed": "all else.",
        "heading": None,
        "rungs": ["circles"],
        "metrics": [metric],
        "seeds": [0, 1, 2],
        "test": test,
        "baseline": next(iter(values)),
        "overrides": {"runtime.threads": 1},
        "variants": [{"name": name, "changes": {"training.steps": 9}} for name in sorted(values)],
        "runs": [
            {
                **{"rung": "circles", "variant": name, "seed": seed, "experiment": f"asked-circles-{name}-{seed}"},
                **{"training_seconds": 2.5, "samples": "ab", "code": "c0de"},
                "metrics": {metric: value, f"{metric}_floor": floor},
            }
            for name, numbers in values.items()
            for seed, value in enumerate(numbers)
        ],
        "failed": {},
    } | changes


def judged(found):
    (answer,) = StudyResults(found).answers
    return {row.variant: row.judged for row in answer.rows}, answer


VALUES = {"plain": [0.10, 0.11, 0.12], "good": [0.05, 0.051, 0.052], "bad": [0.2, 0.21, 0.2], "same": [0.11, 0.1, 0.12]}


def test_a_verdict_says_what_is_better_worse_and_no_different():
    verdicts, answer = judged(results_of(VALUES))
    assert verdicts == {"plain": "", "bad": "worse", "good": "better", "same": "no difference shown"}
    bound = answer.rows[-1].comparison.bound
    assert answer.summary == (
        "On `circles`, by the 2-Wasserstein distance (lower is better): *good* is better than plain; *bad* is worse"
        f" than plain; no difference from plain beyond {bound:.2g}: *same*."
    )
    effect = numpy.mean(VALUES["plain"]) - numpy.mean(VALUES["good"])
    assert f"**good** beats plain by {effect:.4f} ± " in " ".join(answer.sentences)
    assert "3 against 3 runs" in answer.sentences[0]


def test_what_is_better_depends_on_the_metric():
    higher, _ = judged(results_of(VALUES, "coverage"))
    assert (higher["good"], higher["bad"]) == ("worse", "better")
    near, _ = judged(results_of(VALUES, "nearest_training_distance", floor=0.205))
    assert (near["good"], near["bad"]) == ("worse", "better")


def test_means_that_differ_within_the_deviation_are_no_difference():
    verdicts, _ = judged(results_of({"plain": [0.1, 0.2, 0.15], "lucky": [0.09, 0.19, 0.14]}))
    assert verdicts["lucky"] == "no difference shown"


def test_runs_of_the_same_seed_are_paired_where_the_study_says_so():
    """The same 0.01 less in each pair, give or take a tenth: seen by pairs, hidden by Welch's test."""
    values = {"plain": [0.1, 0.2, 0.15], "lucky": [0.0901, 0.1899, 0.14]}
    assert judged(results_of(values, test="paired"))[0]["lucky"] == "better"
    assert judged(results_of(values))[0]["lucky"] == "no difference shown"


def test_one_training_each_concludes_nothing():
    verdicts, answer = judged(results_of({"plain": [0.1], "good": [0.01]}))
    assert verdicts["good"] == "nothing can be concluded"
    assert "nothing can be concluded from fewer than two trainings: *good*" in answer.summary


# The pages


@pytest.fixture
def written(tmp_path):
    """A project's folder with the pages of one study of points."""
    random = torch.Generator().manual_seed(0)
    samples = {"circles": {name: torch.randn(200, 2, generator=random) for name in VALUES}}
    found = results_of(VALUES, failed={"asked-circles-x-0": "it < burst"})
    write_json(tmp_path / "reports/studies/asked/results.json", found)
    write_study(tmp_path / "reports/studies/asked", found, samples)
    return tmp_path


def test_the_pages_hold_verdict_pictures_table_and_commands(written):
    folder = written / "reports/studies/asked"
    page, text = ((folder / name).read_text() for name in ("index.html", "README.md"))
    for part in ("Is it so?", "is better than plain", "Welch", "Holm", "make study NAME=asked", "no difference"):
        assert part in page, part
        assert part in text, part
    assert page.count("data:image/png;base64,") == 2
    assert "it &lt; burst" in page
    assert "![" in text
    assert "](samples_circles.png)" in text
    table = pandas.read_csv(folder / "runs.csv")
    assert len(table) == 12
    assert table[table["variant"] == "good"]["wasserstein_2"].tolist() == VALUES["good"]


def test_the_pages_are_the_same_to_the_byte_without_the_samples(written):
    """What --render does: pictures of samples stay, all else is made anew from results.json."""
    folder = written / "reports/studies/asked"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_study(folder, json.loads((folder / "results.json").read_text()), {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_chart_shows_the_numbers(written):
    folder = written / "reports/studies/asked"
    before = (folder / "quality.png").read_bytes()
    write_study(folder, results_of(VALUES | {"good": [0.06, 0.051, 0.052]}), {})
    assert (folder / "quality.png").read_bytes() != before


def test_the_report_has_the_studies_that_were_run(written):
    (chapter,) = study_chapters(written)
    assert chapter.results.name == "asked"
    assert chapter.picture.path == "studies/asked/quality.png"
    assert chapter.picture.command == "python -m diffusion_ladder.study asked --render"


# Checkpoints of queued experiments


def test_a_queued_copy_keeps_its_checkpoints_in_the_project(tmp_path):
    copy = tmp_path / ".dvc/tmp/exps/tmp1234"
    assert checkpoints_of(copy, "circles", "ab" * 32) == (
        tmp_path / ".checkpoints/in-queue",
        "circles-abababababababab",
        True,
    )
    assert checkpoints_of(tmp_path, "circles", "ab" * 32) == (Path(".checkpoints"), "circles", False)


# The queue itself


@pytest.fixture(scope="module")
def queued(smoke, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The smoke build as a Git repository, and a study of three variants that was run there by two workers."""
    folder = tmp_path_factory.mktemp("queue") / "project"
    shutil.copytree(smoke, folder)
    (folder / ".dvc/config.local").unlink()
    (folder / "studies/tiny.yaml").write_text(
        yaml.safe_dump(
            {
                **{"question": "Is longer better?", "held_fixed": "all else."},
                **{"rungs": ["circles"], "metrics": ["wasserstein_2"], "seeds": [0], "test": "welch"},
                "baseline": "as built",
                "variants": {
                    "as built": {},
                    "longer": {"training.steps": 70},
                    "burst": {"training.learning_rate": 1e12, "training.gradient_clip": None},
                },
            }
        )
    )
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "built"]):
        assert run(["git", *command], folder).returncode == 0
    run(["git", "config", "user.name", "test"], folder)
    run(["git", "config", "user.email", "test@localhost"], folder)
    return folder, study(folder)


def study(folder, *options):
    return run([sys.executable, "-m", "diffusion_ladder.study", "tiny", *options], folder, PYTHONPATH="src")


@pytest.mark.slow
def test_a_study_goes_through_the_queue(queued):
    """One variant fails and harms no other; what was built comes from the run cache, with the same bytes."""
    folder, done = queued
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((folder / "reports/studies/tiny/results.json").read_text())
    assert [each["experiment"] for each in found["runs"]] == ["tiny-circles-as_built-0", "tiny-circles-longer-0"]
    assert [*found["failed"]] == ["tiny-circles-burst-0"]
    assert "lower training.learning_rate" in found["failed"]["tiny-circles-burst-0"]
    assert "tiny-circles-burst-0 failed" in done.stderr
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]["sample@circles"]["outs"]
    assert found["runs"][0]["samples"] in {each["md5"] for each in lock}
    assert found["runs"][1]["samples"] not in {each["md5"] for each in lock}
    assert "nothing can be concluded" in (folder / "reports/studies/tiny/README.md").read_text()


@pytest.mark.slow
def test_queued_runs_fetch_and_prepare_nothing(queued):
    folder, _ = queued
    logs = [run(["dvc", "queue", "logs", f"tiny-circles-{name}-0"], folder).stdout for name in ("as_built", "longer")]
    for log in logs:
        assert not re.findall(r"Running stage '(?:fetch|preprocess|filter|train_classifier)\S*'", log)
        assert "Running stage 'train@circles'" in log
    assert "Stage 'sample@circles' didn't change, skipping" in logs[0]  # the training gave the bytes of the build
    assert "Running stage 'sample@circles'" in logs[1]


@pytest.mark.slow
def test_a_finished_study_runs_nothing_again(queued):
    """Only the failed run is tried anew; without it, nothing is left, and --render needs no queue."""
    folder, _ = queued
    path = folder / "studies/tiny.yaml"
    values = yaml.safe_load(path.read_text())
    del values["variants"]["burst"]
    path.write_text(yaml.safe_dump(values))
    again = study(folder)
    assert again.returncode == 0, again.stderr
    assert "2 runs, 2 of them done. Nothing is left to run." in again.stdout
    page = (folder / "reports/studies/tiny/index.html").read_bytes()
    assert study(folder, "--render").returncode == 0
    assert (folder / "reports/studies/tiny/index.html").read_bytes() == page


class Deserted:
    """A queue without workers; one that is started finishes what waits, unless it dies at once."""

    def __init__(self, states, dies=False):
        self.found, self.dies, self.started, self.done = states, dies, 0, {}

    def start(self, workers):
        self.started += 1
        if not self.dies:
            self.done = {name: ["0" * 40] for name, state in self.found.items() if state == "Queued"}

    def states(self):
        return self.found, 0


@pytest.mark.parametrize(
    ("dies", "failed", "started"), [(False, {"left running"}, 1), (True, {"left running", "waits"}, 4)]
)
def test_workers_that_are_gone_are_started_anew_and_what_they_left_has_failed(monkeypatch, dies, failed, started):
    """As after `dvc queue stop`, whose workers were still stopping when the next study was queued."""
    deserted = Deserted({"waits": "Queued", "left running": "Running"}, dies)
    monkeypatch.setattr(queue, "start", deserted.start)
    monkeypatch.setattr(queue, "states", deserted.states)
    monkeypatch.setattr(queue, "finished", lambda: deserted.done)
    monkeypatch.setattr(queue, "last_words", lambda name: ["gone"])
    for pause in ("LOOK", "ASK"):
        monkeypatch.setattr(commands, pause, 0.0)
    names = {*deserted.found}
    assert {*commands.wait_for(names, {}, commands.Progress(dict.fromkeys(names), 2))} == failed
    assert deserted.started == started


# What was tried


def shown(name, state="success", wasserstein=0.2, steps=100):
    """An experiment as `dvc exp show --json` has it, or its baseline."""
    metrics = {"wasserstein_2": wasserstein, "wasserstein_2_std": 0.01, "wasserstein_2_floor": 0.07, "nfe": 50}
    data = {
        "timestamp": f"2031-01-0{steps % 9 + 1}T10:00:00",
        "params": {"params.yaml": {"data": {"seed": 0, "rungs": {"circles": {"training": {"steps": steps}}}}}},
        "metrics": {
            "reports/metrics/circles.json": {"data": metrics},
            "reports/metrics/moons.json": {"data": metrics | {"wasserstein_2": 0.3}},
            "reports/metrics/classifiers/mnist.json": {"data": {"accuracy": 0.9}},
        },
    }
    return {"name": name, "revs": [{"rev": "ab" * 20, "data": data}], "executor": {"state": state}}


def test_experiments_are_told_in_few_columns_the_newest_first():
    before = shown("", wasserstein=0.25, steps=90)["revs"][0]["data"]
    made = [shown("older"), shown("newer", steps=101, wasserstein=0.1), shown("burst", "failed", steps=99)]
    lines = table_of([{"data": before, "experiments": made}]).splitlines()
    assert re.split(r"\s{2,}|(?<=e) (?=made)", lines[0].strip())[0] == "experiment"
    assert [line.split()[0] for line in lines[1:4]] == ["newer", "older", "burst"]
    assert "circles wasserstein_2 0.100 ± 0.010 0.07" in re.sub(r"\s+", " ", lines[1])
    assert "circles.training.steps: 101" in lines[1]
    assert "moons" not in lines[1]  # it has the numbers of the baseline
    assert "(failed)" in lines[3]
    assert any(line.startswith("dvc exp apply NAME") for line in lines)


def test_without_experiments_there_is_a_hint():
    assert "dvc exp run -S" in table_of([{"data": {}, "experiments": None}])
