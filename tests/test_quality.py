import json
import math
import shutil
import sys

import pytest
import yaml
from conftest import PROJECT, run

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import load_yaml
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.quality import checks

RANGE = {"floor": 0.0, "ceiling": 1.0}
METRICS = {"distance": 3.5, "distance_std": 0.25, "distance_floor": 1.0, "distance_ceiling": 9.0, "accuracy": 0.75}


@pytest.mark.parametrize(
    ("name", "threshold", "shortfall"),
    [
        ("distance", {"at_most": 3.5}, 0.0),
        ("distance", {"at_most": 3.0}, 0.5),
        ("accuracy", {"at_least": 0.75}, 0.0),
        ("accuracy", {"at_least": 1.0}, 0.25),
        ("loss", {"at_most": 1.0}, None),
    ],
)
def test_a_value_passes_up_to_its_threshold_and_falls_short_by_the_rest(name, threshold, shortfall):
    (found,) = checks(METRICS, {name: Threshold(**threshold)})
    assert found.shortfall == shortfall
    assert found.passed == (shortfall == 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["distance", "distance_floor"])
def test_what_is_no_number_is_not_measured_and_does_not_pass(key, bad):
    (found,) = checks(METRICS | {key: bad}, {"distance": Threshold(at_most_floor=9.0)})
    assert found.shortfall is None
    assert not found.passed
    assert "nan" not in str(found)
    assert "inf" not in str(found)


def test_a_check_brings_the_bounds_along():
    (found,) = checks(METRICS, {"distance": Threshold(at_most=3.0)})
    assert (found.value, found.std, found.floor, found.ceiling) == (3.5, 0.25, 1.0, 9.0)
    assert str(found) == "distance = 3.5 ± 0.25 (at most 3): fell short by 0.5"


@pytest.mark.parametrize(
    ("name", "threshold", "limit", "shortfall", "words"),
    [
        ("distance", {"at_most_floor": 4}, 4.0, 0.0, "at most 4 times the floor, 4; reached 3.5 times"),
        ("distance", {"at_most_floor": 3}, 3.0, 0.5, "at most 3 times the floor, 3; reached 3.5 times"),
        ("distance", {"at_most_of_range": 0.25}, 3.0, 0.5, "at most 0.25 of the way from floor to ceiling, 3"),
        ("share", {"at_most_of_range": 0.25}, 0.75, 0.25, "at most 0.25 of the way from floor to ceiling, 0.75"),
        ("ratio", {"within_factor": 2}, 0.5, 0.25, "within a factor of 2 of 1, 0.5"),
        ("distance", {"within_factor": 2}, 2.0, 1.5, "within a factor of 2 of 1, 2"),
        ("accuracy", {"at_most_floor": 3}, None, None, "at most 3 times the floor"),
    ],
)
def test_a_limit_follows_the_bounds_of_the_same_run(name, threshold, limit, shortfall, words):
    metrics = METRICS | {"share": 0.5, "share_floor": 1.0, "share_ceiling": 0.0, "ratio": 0.25}
    (found,) = checks(metrics, {name: Threshold(**threshold)})
    assert (found.threshold, found.shortfall, found.bound) == (limit, shortfall, words)
    assert found.passed == (shortfall == 0.0)


def test_a_rung_with_a_needlessly_costly_sampler_is_told_the_cheaper_one():
    sweep = {"default_is_cheapest_good": 0, "cheapest_good_sampler": "heun", "cheapest_good_nfe": 19}
    threshold = {"default_is_cheapest_good": Threshold(at_least=1)}
    (found,) = checks(sweep, threshold)
    assert str(found).endswith("fell short by 1; the cheapest good sampler is heun with 19 evaluations")
    (found,) = checks(sweep | {"default_is_cheapest_good": 1}, threshold)
    assert found.passed
    assert "heun" not in str(found)


@pytest.mark.parametrize("limits", ["{}", "{at_most: 1.0, at_least: 0.0}"])
def test_a_threshold_is_one_limit(tmp_path, limits):
    values = load_yaml("params.yaml")
    values["rungs"]["faces"]["quality"] = {"label_accuracy": yaml.safe_load(limits)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParameterError, match=r"rungs\.faces\.quality\.label_accuracy: give one of at_most, at_least"):
        load_parameters(tmp_path / "params.yaml")


def test_the_gate_names_the_rung_that_falls_short_and_by_how_much(tmp_path):
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    rungs = load_parameters(PROJECT / "params.yaml").rungs
    thresholds = {name: rung.quality for name, rung in rungs.items()}
    metrics = {model: {name: limit.number for name, limit in rung.items()} for model, rung in thresholds.items()}
    for model, rung in thresholds.items():
        metrics[model] |= {f"{name}_floor": 1.0 for name, limit in rung.items() if limit.kind == "at_most_floor"}
        ranged = [name for name, limit in rung.items() if limit.kind == "at_most_of_range"]
        metrics[model] |= {f"{name}_{bound}": value for name in ranged for bound, value in RANGE.items()}
    (tmp_path / "reports/metrics").mkdir(parents=True)

    def gate():
        for model, values in metrics.items():
            (tmp_path / f"reports/metrics/{model}.json").write_text(json.dumps(values))
        return run([sys.executable, "-m", "diffusion_ladder.quality"], tmp_path, PYTHONPATH=str(PROJECT / "src"))

    assert gate().returncode == 0
    name, limit = next(iter(thresholds["circles"].items()))
    metrics["circles"][name] += 0.5 if limit.at_least is None else -0.5
    failed = gate()
    assert failed.returncode == 1
    assert [line.split(":")[0] for line in failed.stdout.splitlines() if "fell short by 0.5" in line] == ["circles"]
