"""How long a build will take: which stages, from which records, corrected by those that have finished."""

import json
import os
import subprocess

import pytest
from conftest import PROJECT

from diffusion_ladder import forecast
from diffusion_ladder.foundation import runtime
from diffusion_ladder.foundation.graph import read_graph
from diffusion_ladder.foundation.section import load_yaml


@pytest.fixture
def records(tmp_path, monkeypatch):
    """An empty folder with places for the forecast and for the records."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "reports/run").mkdir(parents=True)

    def write(stage: str, seconds: float, **more) -> None:
        path = tmp_path / f"reports/run/{stage}.json"
        path.write_text(json.dumps({"stage": stage, "seconds": seconds, **more}))

    return write


def test_what_follows_a_changed_stage_is_what_dvc_would_build():
    graph = read_graph(load_yaml("params.yaml"))
    downstream = forecast.dependants(graph, ["sample@circles"])
    assert {"sample@circles", "evaluate@circles", "render@circles", "report"} == downstream
    asked = subprocess.run(["dvc", "dag", "--dot"], capture_output=True, text=True, check=True, cwd=PROJECT).stdout
    edges = [line.strip().rstrip(";").replace('"', "").split(" -> ") for line in asked.splitlines() if "->" in line]
    reached = {"train@faces"}
    while more := {child for parent, child in edges if parent in reached} - reached:
        reached |= more
    assert forecast.dependants(graph, ["train@faces"]) == reached


def test_a_slower_machine_takes_longer_and_an_unknown_stage_as_long_as_its_kind():
    past = {f"train@{name}": {"seconds": seconds} for name, seconds in [("a", 10.0), ("b", 30.0), ("c", 50.0)]}
    assert forecast.forecast(["train@a", "train@new", "report"], past, 2.0) == {
        "report": 0.0,
        "train@a": 20.0,
        "train@new": 60.0,
    }


def test_the_pace_is_that_of_the_longest_training_on_record(monkeypatch):
    from diffusion_ladder.params.whole import load_parameters

    work = {"work": {"example trained on": {"count": 100, "seconds": 5.0}}}
    past = {"train@circles": {"seconds": 5.0, **work}, "train@moons": {"seconds": 9.0, **work}}
    monkeypatch.setattr(forecast, "seconds_per_example", lambda _, rung: {"moons": 0.15}[rung])
    pace, rung = forecast.pace_of(load_parameters(), past)
    assert (pace, rung) == (pytest.approx(3.0), "moons")
    assert forecast.pace_of(load_parameters(), {}) == (1.0, "")


def test_a_rehearsal_takes_time():
    from diffusion_ladder.params.whole import load_parameters

    assert forecast.seconds_per_example(load_parameters(), "circles") > 0


def test_the_time_left_is_corrected_by_the_stages_that_finished(records, monkeypatch):
    monkeypatch.setattr(runtime, "FORECAST_WEIGHT", 0.001)
    assert runtime.time_left("train@faces") == ""
    for stage in ("fetch@faces", "train@faces", "report"):
        records(stage, 999.0)
        os.utime(f"reports/run/{stage}.json", (1, 1))
    plan = {"seconds": {"fetch@faces": 10.0, "train@faces": 300.0, "report": 100.0}, "start": 0.0}
    runtime.FORECAST.write_text(json.dumps(plan))
    os.utime(runtime.FORECAST, (2, 2))
    records("fetch@faces", 20.0)  # finished since, and took twice as long
    assert runtime.time_left("train@faces") == "; about 13 min left of all"
    assert runtime.time_left("fetch@faces") == ""  # built once more by itself
    assert runtime.time_left("elsewhere") == ""


def test_times_are_told_no_finer_than_they_are_known():
    assert [runtime.in_minutes(seconds) for seconds in (0.2, 89, 100, 3000, 9000)] == [
        "1 s",
        "89 s",
        "2 min",
        "50 min",
        "2.5 h",
    ]
