"""The learnt score beside the exact one: fields and errors, in numbers and in pictures."""

import io
import math
import statistics

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import multivariate_normal

from diffusion_ladder.diffusion.exact import data_set_log_density
from diffusion_ladder.diffusion.schedules import make_schedule
from diffusion_ladder.evaluation.scores import (
    exact_epsilon,
    relative_error,
    score_errors,
    score_fields,
    spread_timesteps,
)
from diffusion_ladder.figures import scores as figures
from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.foundation.artifacts import write_bytes, write_json
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.report.content import Reader
from diffusion_ladder.report.page import build_pages

SCHEDULE = make_schedule("linear", 100, 1e-3, 0.1)
DATA = torch.randn((300, 2), generator=torch.Generator().manual_seed(0))
OTHERS = torch.randn((200, 2), generator=torch.Generator().manual_seed(1))
EXACT = exact_epsilon(DATA, SCHEDULE)
SHOWN = [2, 15, 60]


def biased(x_t, t):
    """Ten per cent too long."""
    return 1.1 * EXACT(x_t, t)


def measured(learnt, held_out=OTHERS, timesteps=(0, 20, 99), seed=0):
    draws = [torch.Generator().manual_seed(seed + number) for number in range(2)]
    return score_errors(learnt, DATA, held_out, SCHEDULE, timesteps, 50, draws, lambda: None)


def test_the_log_density_is_that_of_the_mixture():
    points, x, alpha_bar = DATA[:3].double(), OTHERS[:600].double(), 0.8
    parts = [multivariate_normal(math.sqrt(alpha_bar) * point.numpy(), 1 - alpha_bar) for point in points]
    expected = np.log(np.mean([part.pdf(x.numpy()) for part in parts], axis=0))
    assert np.allclose(data_set_log_density(x, alpha_bar, points).numpy(), expected)


def test_the_error_is_that_of_the_score_at_every_timestep():
    errors = measured(biased)
    assert errors.timesteps.tolist() == [0, 20, 99]
    assert torch.allclose(errors.learnt, torch.full((3, 2), 0.1), rtol=1e-4)
    assert errors.zero.tolist() == [[1, 1]] * 3
    assert measured(EXACT).learnt.tolist() == [[0, 0]] * 3


def test_the_table_has_the_mean_and_deviation_over_the_seeds_beside_the_bounds():
    errors = measured(lambda x_t, t: 0.9 * EXACT(x_t, t) + 0.1 * x_t)
    row = errors.table()[1]
    assert row["t"] == 21
    for key, values in {"": errors.learnt[1], "_floor": errors.held_out[1], "_ceiling": errors.zero[1]}.items():
        assert row[f"score_error{key}"] == pytest.approx(statistics.mean(values.tolist()), rel=1e-5)
        assert row[f"score_error{key}_std"] == pytest.approx(statistics.stdev(values.tolist()), rel=1e-5)
    assert row["score_error_std"] > 0


def test_other_points_of_the_same_source_disagree_most_where_the_points_are_known_by_heart():
    held_out = measured(EXACT).held_out.mean(dim=1)
    assert held_out[0] > 2 * held_out[1] > 2 * held_out[2] > 0
    assert measured(EXACT, held_out=DATA).held_out.tolist() == [[0, 0]] * 3


def test_the_relative_error_weighs_by_size():
    expected = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert relative_error(expected + torch.tensor([[1.0, 0.0], [0.0, 0.0]]), expected) == pytest.approx(1 / 5)


def test_the_fields_lie_where_the_picture_draws_them():
    fields = score_fields(biased, DATA, SCHEDULE, SHOWN, reach=2.0, grid=5)
    assert fields.exact.shape == fields.learnt.shape == (3, 5, 5, 2)
    assert fields.log_density.shape == (3, 5, 5)
    place = torch.tensor([[fields.places[3], fields.places[1]]])  # to the right of the middle, and below
    assert torch.allclose(fields.exact[1, 1, 3], EXACT(place, SHOWN[1])[0])
    assert torch.allclose(fields.learnt, 1.1 * fields.exact)


@pytest.mark.parametrize("T", [2, 30, 1000])
def test_timesteps_reach_from_the_first_to_the_last(T):
    chosen = spread_timesteps(T, 30)
    assert (chosen[0], chosen[-1]) == (0, T - 1)
    assert len(chosen) <= 30
    assert chosen == sorted(set(chosen))


def exhibits_of(learnt):
    fields = score_fields(learnt, DATA, SCHEDULE, SHOWN, reach=2.7, grid=25)
    with house_style():
        return list(figures.exhibits(fields, measured(learnt, timesteps=sorted({*SHOWN, 0, 99}))))


def pixels_of(exhibit, colour):
    """How many pixels of a picture have nearly that colour."""
    pixels = np.asarray(Image.open(io.BytesIO(exhibit.content)).convert("RGB")).astype(int)
    return int((np.abs(pixels - colour).max(axis=2) < 8).sum())


def test_the_figures_show_what_differs_and_their_captions_say_by_how_much():
    perfect, wrong = exhibits_of(EXACT), exhibits_of(biased)
    assert [exhibit.file for exhibit in wrong] == ["score_fields.png", "score_error.png"]
    orange = [pixels_of(exhibits[0], (0xE6, 0x9F, 0x00)) for exhibits in (perfect, wrong)]  # differences of 0.2 to 0.4
    assert orange[1] > orange[0] + 1000
    assert "10 % at best" in wrong[1].caption
    assert "10 % at worst" in wrong[1].caption
    for exhibit in wrong:
        assert exhibit.alt
        assert len(exhibit.content) < 150_000
    assert [each.content for each in exhibits_of(biased)] == [each.content for each in wrong]


def test_the_report_shows_them_in_the_chapter_of_their_rung(tmp_path):
    folder, captions = tmp_path / "reports/figures/scores/moons", []
    for exhibit in exhibits_of(biased):
        write_bytes(folder / exhibit.file, exhibit.content)
        captions.append(exhibit.entry())
    write_json(folder / "captions.json", captions)
    write_json(tmp_path / "reports/metrics/scores/moons.json", {"score_error_low_noise": 0.1234})
    parameters = load_parameters()
    chapters = {chapter.key: chapter for chapter in Reader(tmp_path, parameters).report().chapters}
    assert [picture.path for picture in chapters["moons"].all_pictures] == [
        f"figures/scores/moons/{entry['file']}" for entry in captions
    ]
    (metric,) = chapters["moons"].metrics
    assert metric.description.title == "Error of the learnt score with little noise"
    assert chapters["circles"].all_pictures == chapters["circles"].metrics == []
    for page in (pages := build_pages(tmp_path, parameters)).html, pages.markdown:
        assert "0.1234" in page
        assert captions[0]["title"] in page
