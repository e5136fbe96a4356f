"""The sampling loop: exact for a Gaussian, independent of batches, the same noise under every label."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.params import MLPNetwork, Sampling, Schedule
from diffusion_ladder.rungs import Rung
from diffusion_ladder.sampling.guidance import guided
from diffusion_ladder.sampling.loop import draw_samples, frame_indices

SCHEDULE = Schedule(name="linear", T=1000, beta_start=1e-4, beta_end=0.02, prediction_type="epsilon")
SAMPLING = Sampling(
    steps=50,
    spacing="trailing",
    eta=0.0,
    clip_sample=False,
    guidance_scale=1.0,
    count=8,
    batch_size=8,
    comparison_steps=50,
    comparison_count=8,
    trajectory_count=4,
    trajectory_frames=5,
)
SAMPLERS = ["ddpm", "ddim", "diffusers_ddpm", "diffusers_ddim"]


class GaussianDenoiser(nn.Module):
    """The optimal epsilon for data N(mean, deviation^2) in each coordinate, whose mean moves with the label."""

    def __init__(self, mean=1.5, deviation=0.3):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([mean, deviation]))
        self.alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

    def forward(self, sample, timestep, class_labels=None):
        mean, deviation = self.weight.double()
        labels = torch.zeros(len(sample)) if class_labels is None else class_labels
        shape = (-1,) + (1,) * (sample.ndim - 1)
        mean = mean * (1 + labels.double().reshape(shape))
        alpha_bar = self.alpha_bar[timestep].reshape(shape)
        variance = alpha_bar * deviation**2 + 1 - alpha_bar
        return ((1 - alpha_bar).sqrt() * (sample - alpha_bar.sqrt() * mean) / variance).float()


def rung(**changes):
    values = {
        "model": "gaussian",
        "network": GaussianDenoiser(),
        "settings": MLPNetwork(name="mlp", hidden_size=2, hidden_layers=1, time_embedding_size=2),
        "schedule": SCHEDULE,
        "sample_shape": (2,),
        "num_classes": 0,
        "null_label": None,
        "normalisation": Normalisation(mean=(0.0,), std=(1.0,), bytes=False),
    }
    return Rung(**(values | changes))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_of_a_gaussian_have_its_mean_and_deviation(sampler):
    settings = SAMPLING.model_copy(update={"batch_size": 2000})
    drawn = draw_samples(rung(), sampler, settings, 250, 2000, seed=0).samples
    assert drawn.mean(0).tolist() == pytest.approx([1.5, 1.5], abs=0.03)
    assert drawn.std(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_batch_size_changes_no_sample(sampler):
    whole, parts = (
        draw_samples(rung(), sampler, SAMPLING.model_copy(update={"batch_size": size}), 20, 8, seed=0)
        for size in (8, 3)
    )
    torch.testing.assert_close(whole.samples, parts.samples, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.states, parts.states, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fewer_samples_are_the_first_of_more(sampler):
    more, fewer = (draw_samples(rung(), sampler, SAMPLING, 20, count, seed=0).samples for count in (8, 4))
    torch.testing.assert_close(more[:4], fewer, rtol=0, atol=1e-5)


def test_every_class_gets_the_same_noise():
    conditional = rung(network=GaussianDenoiser(), num_classes=2)
    drawn = draw_samples(conditional, "ddpm", SAMPLING, 50, 8, seed=0)
    assert drawn.labels.tolist() == [0] * 4 + [1] * 4
    torch.testing.assert_close(drawn.states[0, :2], drawn.states[0, 2:])  # pure noise, two kept samples a class
    shift = drawn.samples[4:] - drawn.samples[:4]
    torch.testing.assert_close(shift, torch.full_like(shift, 1.5), atol=0.05, rtol=0)


def test_both_samplers_start_from_the_same_noise():
    ddpm, ddim = (draw_samples(rung(), name, SAMPLING, 20, 8, seed=0) for name in ("ddpm", "ddim"))
    assert torch.equal(ddpm.states[0], ddim.states[0])
    assert not torch.equal(ddpm.samples, ddim.samples)


@pytest.mark.parametrize(("ours", "library"), [("ddpm", "diffusers_ddpm"), ("ddim", "diffusers_ddim")])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_our_samplers_draw_what_the_librarys_draw(ours, library, spacing):
    settings = SAMPLING.model_copy(update={"spacing": spacing, "eta": 0.5})
    one, other = (draw_samples(rung(), name, settings, 30, 8, seed=0).samples for name in (ours, library))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_last_timestep_is_visited_and_the_trajectory_ends_in_the_samples():
    drawn = draw_samples(rung(), "ddim", SAMPLING.model_copy(update={"spacing": "leading"}), "all", 8, seed=0)
    assert drawn.timesteps[0] == 999
    assert drawn.timesteps[-1] == 0
    assert torch.equal(drawn.final, drawn.samples[:4])
    torch.testing.assert_close(drawn.predicted[-1], drawn.final)  # the last DDIM step lands on the predicted x_0
    assert drawn.nfe == 1000


def test_images_come_out_as_bytes_and_never_wrap():
    bright = rung(network=GaussianDenoiser(mean=1.2, deviation=0.01), sample_shape=(1, 4, 4), normalisation=IMAGES)
    drawn = draw_samples(bright, "ddim", SAMPLING, 50, 8, seed=0)
    assert drawn.samples.dtype == torch.uint8
    assert drawn.samples.min() > 250


def test_frames_are_even_and_include_both_ends():
    assert frame_indices(1001, 3) == [0, 500, 1000]
    assert frame_indices(4, 10) == [0, 1, 2, 3]
    assert frame_indices(50, 50) == list(range(50))


def test_guidance_of_scale_one_is_the_conditional_model_bit_for_bit():
    conditional = rung(num_classes=2, null_label=2)
    x, timesteps, labels = torch.randn(4, 2), torch.full((4,), 300), torch.tensor([0, 1, 0, 1])
    prediction = guided(conditional, labels, 1.0, torch.float32)(x, timesteps)
    assert torch.equal(prediction, conditional.network(x, timesteps, labels))


def test_guidance_extrapolates_from_the_null_prediction():
    conditional = rung(num_classes=2, null_label=2)
    x, timesteps, labels = torch.randn(4, 2), torch.full((4,), 300), torch.tensor([0, 1, 0, 1])
    given, null = (conditional.network(x, timesteps, each) for each in (labels, torch.full((4,), 2)))
    prediction = guided(conditional, labels, 3.0, torch.float32)(x, timesteps)
    torch.testing.assert_close(prediction, 3 * given - 2 * null)
    torch.testing.assert_close(guided(conditional, labels, 0.0, torch.float32)(x, timesteps), null)


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw_samples(replace(rung()), "ddpm", SAMPLING, 10, 8, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
