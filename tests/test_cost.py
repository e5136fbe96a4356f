"""Quality against cost: the knee and the choice by hand, and numbers that no batch size changes."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_evaluation_images import SETTINGS as CLASSIFIER
from test_evaluation_images import bars

from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.evaluation.classifier import new_classifier
from diffusion_ladder.evaluation.cost import cheapest_good, evaluate_images_cost, evaluate_points_cost, knee
from diffusion_ladder.params.samplers import SAMPLERS
from diffusion_ladder.randomness import generator
from diffusion_ladder.sampling.sweep import Setting, settings_by_table


def generator_of(*purpose):
    return generator(0, *purpose)


def test_the_knee_is_the_point_farthest_below_the_chord():
    # By hand: logarithms 0, 1/3, 2/3, 1 along; falls of 0, 0.9, 0.95, 1; so 0 , 0.57, 0.28, 0 below the chord.
    assert knee([1, 10, 100, 1000], [10.0, 1.0, 0.5, 0.0]) == 1
    assert knee([1, 10, 100, 1000], [10.0, 9.0, 0.5, 0.0]) == 2
    assert knee([5, 10, 20, 40], [-1.0, -1.9, -1.95, -2.0]) == 1  # an unbiased distance can be below nought


@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [3.0, 2.9, 1.0]])
def test_a_straight_a_flat_a_rising_and_a_hollow_curve_have_no_knee(values):
    assert knee([1, 10, 100], values) is None


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(-5, 5), st.floats(0, 3)), min_size=1, max_size=9))
def test_the_cheapest_good_setting_is_good_and_nothing_good_is_cheaper(settings):
    evaluations, means, deviations = zip(*settings, strict=True)
    rows = [{"distance": mean, "distance_std": deviation} for _, mean, deviation in settings]
    chosen = cheapest_good([{"nfe": nfe} for nfe in evaluations], rows)
    best = min(range(len(means)), key=lambda index: (means[index], index))
    limit = max(0.0, means[best]) + deviations[best]
    assert means[chosen] <= limit
    for other, mean in enumerate(means):
        cheaper = math.ceil(evaluations[other] / 2) - math.ceil(evaluations[chosen] / 2)
        assert mean > limit or cheaper > 0 or (cheaper == 0 and means[chosen] <= mean)


def test_one_evaluation_more_is_no_reason_to_take_a_worse_sampler():
    rows = [{"distance": mean, "distance_std": 0.5} for mean in (0.2, 0.1, 0.0)]
    assert cheapest_good([{"nfe": nfe} for nfe in (49, 50, 51)], rows) == 1


def test_a_good_setting_is_good_by_every_metric_where_there_is_one():
    settings = [{"nfe": nfe} for nfe in (10, 20, 50)]
    rows = [{"distance": 1.0, "distance_std": 0.5} for _ in settings]
    strays = [{"share": share, "share_std": 0.01} for share in (0.09, 0.02, 0.015)]
    assert cheapest_good(settings, rows) == 0
    assert cheapest_good(settings, [row | other for row, other in zip(rows, strays, strict=True)]) == 1
    rows[1:] = [{"distance": 2.0, "distance_std": 0.5}] * 2  # now the first alone is near, and only others are neat
    assert cheapest_good(settings, [row | other for row, other in zip(rows, strays, strict=True)]) == 0


def swept_points():
    """Real points, seen through settings that move them by 2, 0.02 and nothing, for three sampling seeds."""
    noise = torch.randn(3 * 200, 2, generator=torch.Generator().manual_seed(1))
    swept = {"cost": torch.stack([noise + shift for shift in (2.0, 0.02, 0.0)])}
    settings = [{"sampler": "ddim", "steps": nfe, "nfe": nfe} for nfe in (5, 10, 20)]
    return swept | {"sampling_seed": torch.arange(3).repeat_interleave(200)}, {"cost": settings}


@pytest.mark.parametrize(("nfe", "is_cheapest", "noise"), [(10, 1, 0.0), (20, 0, 0.0), (10, 1, 0.3)])
def test_the_cheapest_sampler_as_good_as_the_best_is_found(nfe, is_cheapest, noise):
    swept, facts = swept_points()
    held_out = torch.randn(1500, 2, generator=torch.Generator().manual_seed(2))
    own = {"sampler": "ddim", "nfe": nfe}
    card = {"source": "make_circles", "parameters": {"noise": noise, "factor": 0.5}}
    found = evaluate_points_cost(swept, facts, own, held_out, 400, generator_of, card)
    assert found.numbers == {
        "cheapest_good_sampler": "ddim",
        "cheapest_good_nfe": 10,
        "default_is_cheapest_good": is_cheapest,
    }
    rows = found.tables["cost"]
    assert [row["is_cheapest_good"] for row in rows] == [0, 1, 0]
    assert [row["is_knee"] for row in rows] == [0, 1, 0]
    assert ("outside_tube_share" in rows[0]) == (noise > 0)
    if noise:
        outside = (swept["cost"].norm(dim=2) - 1).abs().minimum((swept["cost"].norm(dim=2) - 0.5).abs()) > 0.9
        shares = [row["outside_tube_share"] for row in rows]
        assert shares == pytest.approx(outside.double().mean(dim=1).tolist(), rel=1e-5)
    # Two standard normal points of the plane are sqrt(pi) apart: the mean of Rayleigh's law of scale sqrt(2).
    apart = 2 * float(
        (torch.randn(10**5, 2, generator=torch.Generator().manual_seed(3)) * 2**0.5 + 2).norm(dim=1).mean()
    )
    assert rows[0]["energy_distance"] == pytest.approx(apart - 2 * math.pi**0.5, abs=0.15)
    assert abs(rows[2]["energy_distance"]) < 4 * rows[2]["energy_distance_std"] + 0.02


@pytest.fixture(scope="module")
def swept_images():
    """A network that judges, and images of the wanted classes, of any class and of none in particular."""
    network = new_classifier((1, 8, 8), CLASSIFIER, 2, torch.Generator().manual_seed(0)).eval()
    images, labels = bars(30, seed=3)
    drawn = torch.stack([images, images.flip(0), 255 - images])
    swept = {"cost": drawn, "guidance": drawn[:2], "labels": labels, "sampling_seed": torch.arange(3).repeat(10)}
    settings = [{"sampler": "ddpm", "steps": nfe, "nfe": nfe, "guidance_scale": 1.0} for nfe in (5, 10, 20)]
    return network, swept, {"cost": settings, "guidance": settings[:2]}


def images_cost(swept_images, batch_size):
    network, swept, facts = swept_images
    own, held_out = {"sampler": "ddpm", "nfe": 20}, bars(50, seed=4)[0]
    return evaluate_images_cost(
        swept, facts, own, held_out, classifier=network, normalisation=IMAGES, batch_size=batch_size
    )


def test_the_batch_size_of_the_judge_changes_no_number(swept_images):
    whole, parts = (images_cost(swept_images, size) for size in (256, 7))
    assert parts.numbers == whole.numbers
    for table, rows in whole.tables.items():
        for row, other in zip(rows, parts.tables[table], strict=True):
            assert [*other] == [*row]
            numbers = [key for key, value in row.items() if not isinstance(value, str)]
            # Features are float32, of size one: 1e-6 of them, and six digits are written.
            assert [other[key] for key in numbers] == pytest.approx([row[key] for key in numbers], rel=1e-5, abs=1e-6)


def test_guidance_is_told_by_scale_with_the_share_of_requested_classes(swept_images):
    rows = images_cost(swept_images, 16).tables["guidance"]
    assert [row["scale"] for row in rows] == [1.0, 1.0]
    assert [row["nfe"] for row in rows] == [5, 10]
    for row in rows:
        assert 0 <= row["label_accuracy"] <= 1
        assert {"label_accuracy_std", "kernel_distance", "kernel_distance_std"} < row.keys()


def test_every_method_is_drawn_within_every_cost_and_the_rungs_own_at_every_scale():
    assert [SAMPLERS["heun"].steps_within(evaluations) for evaluations in (1, 9, 10, 50)] == [1, 5, 5, 25]
    guidance = SimpleNamespace(scales=[1.0, 3.0], steps=7)
    sweep = SimpleNamespace(samplers=["ddim", "heun"], evaluations=[9, 20], guidance=guidance)
    for library in ("", "diffusers_"):  # all samplers come from where the rung's own does
        own = SimpleNamespace(sampler=f"{library}dpm_solver", steps=5, guidance_scale=1.5)
        assert settings_by_table(sweep, own) == {
            "cost": [
                Setting(f"{library}ddim", 9, 1.5),
                Setting(f"{library}ddim", 20, 1.5),
                Setting(f"{library}heun", 5, 1.5),
                Setting(f"{library}heun", 10, 1.5),
            ],
            "guidance": [Setting(f"{library}dpm_solver", 7, 1.0), Setting(f"{library}dpm_solver", 7, 3.0)],
        }
    sweep.guidance = None
    assert settings_by_table(sweep, own).keys() == {"cost"}


def test_a_distance_below_nought_is_no_better_than_nought():
    settings = [{"nfe": 10}, {"nfe": 20}, {"nfe": 50}]
    noisy = [{"kernel_distance": mean, "kernel_distance_std": 0.04} for mean in (-0.10, -0.13, -0.075)]
    grain = [{"texture_kernel_distance": mean, "texture_kernel_distance_std": 4.0} for mean in (118.0, 22.0, 5.8)]
    assert cheapest_good(settings, noisy) == 0
    assert cheapest_good(settings, [one | other for one, other in zip(noisy, grain, strict=True)]) == 2
