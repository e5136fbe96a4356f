"""How timesteps are drawn and the learning rate ends, against closed forms."""

import pytest
import torch

from diffusion_ladder.diffusion.schedules import make_schedule
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import Decay, TimestepDensity, Training
from diffusion_ladder.training.loop import draw_timesteps, learning_rate_at

SCHEDULE = Schedule(name="linear", T=1000, beta_start=1e-4, beta_end=0.01, prediction_type="epsilon")
TRAINING = Training(
    seed=0,
    steps=1000,
    batch_size=50,
    learning_rate=1e-2,
    warmup_steps=10,
    weight_decay=0.0,
    optimiser="adamw",
    adam_betas=[0.9, 0.99],
    ema_decay=0.9,
    ema_warmup=10,
    log_every=5,
)


def drawn(count, seed=0, schedule=SCHEDULE, **changes):
    settings = TRAINING.model_copy(update=changes)
    return draw_timesteps(count, schedule, settings, torch.Generator().manual_seed(seed))


def test_stratified_timesteps_lie_one_in_each_part_in_random_order():
    batches = [drawn(50, seed, stratified_timesteps=True) for seed in range(200)]
    assert all(sorted((timesteps // 20).tolist()) == list(range(50)) for timesteps in batches)
    firsts = torch.stack([timesteps[0] for timesteps in batches]).double()
    assert firsts.mean() == pytest.approx(499.5, abs=4 * 289 / 200**0.5)  # each place of a batch is uniform
    within = torch.bincount(torch.cat(batches) % 20, minlength=20)
    assert (within - 500).abs().max() < 5 * 500**0.5


def test_more_parts_than_timesteps_give_every_timestep_its_share():
    few = SCHEDULE.model_copy(update={"T": 10})
    assert torch.bincount(drawn(40, schedule=few, stratified_timesteps=True)).tolist() == [4] * 10


@pytest.mark.parametrize("stratified", [True, False])
def test_timesteps_of_a_density_have_normal_log_snr(stratified):
    density = TimestepDensity(log_snr_mean=1.0, log_snr_deviation=1.5)
    timesteps = drawn(5000, timestep_density=density, stratified_timesteps=stratified)
    log_snr = make_schedule("linear", 1000, 1e-4, 0.01).alpha_bar[timesteps].logit()
    places = torch.linspace(-2, 4, 13, dtype=torch.float64)
    expected = torch.distributions.Normal(1.0, 1.5).cdf(places)
    found = (log_snr[:, None] <= places).double().mean(0)
    assert (found - expected).abs().max() < 0.03


def test_a_density_at_zero_terminal_snr_gives_timesteps_in_range():
    schedule = SCHEDULE.model_copy(update={"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"})
    timesteps = drawn(5000, schedule=schedule, timestep_density=TimestepDensity(log_snr_mean=-8.0, log_snr_deviation=3))
    assert 0 <= timesteps.min() < timesteps.max() == 999


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.5), ("one_minus_sqrt", 1 - 0.5**0.5)])
def test_the_learning_rate_stays_and_decays_in_the_last_part(shape, halfway):
    settings = TRAINING.model_copy(update={"decay": Decay(shape=shape, share=0.4)})
    rates = [learning_rate_at(step, settings) / 1e-2 for step in range(1001)]
    assert rates[4] == pytest.approx(0.5)
    assert rates[10:601] == pytest.approx([1.0] * 591)
    assert rates[800] == pytest.approx(halfway)
    assert rates[1000] == pytest.approx(0, abs=1e-7)
