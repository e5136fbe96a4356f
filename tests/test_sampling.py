"""The sampling loop: exact for a Gaussian, independent of batches, the same noise under every label."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from test_training import SCHEDULE as TRAINING_SCHEDULE
from test_training import TRAINING
from torch import nn

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.network import MLPNetwork
from diffusion_ladder.params.sampling import Sampling, Thresholding
from diffusion_ladder.rungs import Rung, build_network, build_scheduler
from diffusion_ladder.sampling.guidance import guided
from diffusion_ladder.sampling.loop import Drawing, draw_samples, frame_indices
from diffusion_ladder.training.loop import Task, draw_batch, train

SCHEDULE = TRAINING_SCHEDULE.model_copy(update={"beta_end": 0.02})
SAMPLING = Sampling(
    sampler="ddpm",
    steps=50,
    spacing="trailing",
    variance_type="fixed_small",
    seeds=2,
    count=8,
    batch_size=8,
    comparison_steps=50,
    comparison_count=8,
    trajectory_count=4,
    trajectory_frames=5,
)
SAMPLERS = ["ddpm", "ddim", "dpm_solver", "heun"]
SAMPLERS += [f"diffusers_{name}" for name in SAMPLERS]

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # from diffusers' use of numpy


class GaussianDenoiser(nn.Module):
    """The optimal epsilon for data N(mean, deviation^2) in each coordinate, whose mean moves with the label."""

    def __init__(self, mean=1.5, deviation=0.3):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([mean, deviation]))
        self.alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

    def alpha_bar_at(self, timestep):
        """Between integer timesteps, sigma is linear, as Heun has it."""
        sigma = (1 / self.alpha_bar - 1).sqrt().numpy()
        return 1 / (1 + torch.from_numpy(np.interp(timestep.double().numpy(), np.arange(1000), sigma)) ** 2)

    def forward(self, sample, timestep, class_labels=None):
        mean, deviation = self.weight.double()
        labels = torch.zeros(len(sample)) if class_labels is None else class_labels
        shape = (-1,) + (1,) * (sample.ndim - 1)
        mean = mean * (1 + labels.double().reshape(shape))
        alpha_bar = self.alpha_bar_at(timestep).reshape(shape)
        variance = alpha_bar * deviation**2 + 1 - alpha_bar
        return ((1 - alpha_bar).sqrt() * (sample - alpha_bar.sqrt() * mean) / variance).float()


def rung(**changes):
    values = {
        "model": "gaussian",
        "dataset": "plane",
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
    settings = SAMPLING.model_copy(update={"batch_size": 1000})
    drawn = draw_samples(Drawing(rung(), sampler, settings, 250, 1000, seed=0)).samples
    assert drawn.mean(0).tolist() == pytest.approx([1.5, 1.5], abs=0.04)
    assert drawn.std(0).tolist() == pytest.approx([0.3, 0.3], abs=0.04)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_batch_size_changes_no_sample(sampler):
    whole, parts = (
        draw_samples(Drawing(rung(), sampler, SAMPLING.model_copy(update={"batch_size": size}), 20, 8, seed=0))
        for size in (8, 3)
    )
    torch.testing.assert_close(whole.samples, parts.samples, rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.states, parts.states, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fewer_samples_are_the_first_of_more(sampler):
    more, fewer = (draw_samples(Drawing(rung(), sampler, SAMPLING, 20, count, seed=0)).samples for count in (8, 4))
    torch.testing.assert_close(more[:4], fewer, rtol=0, atol=1e-5)


def test_each_sampling_seed_repeats_everything_with_other_noise():
    conditional = rung(network=GaussianDenoiser(), num_classes=2)
    settings = SAMPLING.model_copy(update={"batch_size": 3})  # batches that reach from one seed into the next
    alone = draw_samples(Drawing(conditional, "ddpm", SAMPLING, 20, 8, seed=0))
    three = draw_samples(Drawing(conditional, "ddpm", settings, 20, 8, seed=0, seeds=3))
    assert three.sampling_seed.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert three.labels.tolist() == alone.labels.tolist() * 3
    torch.testing.assert_close(three.samples[:8], alone.samples, rtol=0, atol=1e-5)
    torch.testing.assert_close(three.states, alone.states, rtol=0, atol=1e-5)  # of the first seed alone
    assert len(three.samples[three.labels == 0].unique(dim=0)) == 12


def test_every_class_gets_the_same_noise():
    conditional = rung(network=GaussianDenoiser(), num_classes=2)
    drawn = draw_samples(Drawing(conditional, "ddpm", SAMPLING, 50, 8, seed=0))
    assert drawn.labels.tolist() == [0] * 4 + [1] * 4
    torch.testing.assert_close(drawn.states[0, :2], drawn.states[0, 2:])  # pure noise, two kept samples a class
    shift = drawn.samples[4:] - drawn.samples[:4]
    torch.testing.assert_close(shift, torch.full_like(shift, 1.5), atol=0.05, rtol=0)


def test_rungs_of_the_same_data_start_from_the_same_noise_and_those_of_other_data_do_not():
    first, twin, other = (
        draw_samples(Drawing(rung(model=model, dataset=dataset), "ddpm", SAMPLING, 3, 2, seed=0)).states[0]
        for model, dataset in (("one", "digits"), ("another", "digits"), ("one", "points"))
    )
    assert torch.equal(first, twin)
    assert not torch.equal(first, other)


def test_both_samplers_start_from_the_same_noise():
    ddpm, ddim = (draw_samples(Drawing(rung(), name, SAMPLING, 20, 8, seed=0)) for name in ("ddpm", "ddim"))
    assert torch.equal(ddpm.states[0], ddim.states[0])
    assert not torch.equal(ddpm.samples, ddim.samples)


THRESHOLDING = {"thresholding": Thresholding(ratio=0.995, max_value=1.5)}
OPTIONS = [{"eta": 0.5}, {"variance_type": "fixed_large"}, {"clip_sample": True}, THRESHOLDING]
POSSIBLE = [pair for pair in product(SAMPLERS[:4], OPTIONS) if pair != ("heun", THRESHOLDING)]


@pytest.mark.parametrize(("sampler", "options"), POSSIBLE)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_our_samplers_draw_what_the_librarys_draw(sampler, spacing, options):
    settings = SAMPLING.model_copy(update={"spacing": spacing, **options})
    images = rung(sample_shape=(1, 2, 3))
    one, other = (draw_samples(Drawing(images, f"{of}{sampler}", settings, 30, 8, seed=0)) for of in ("", "diffusers_"))
    for name in ("states", "predicted"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=2e-4, atol=2e-4)
    noisy = sampler == "ddpm" and spacing == "trailing" and "variance_type" in options  # in diffusers' last step
    finished = other.predicted[-1] if noisy else other.final
    torch.testing.assert_close(one.final, finished, rtol=2e-4, atol=2e-4)
    if noisy:
        assert (other.final - finished).std() > 0.03
    assert torch.equal(one.timesteps, other.timesteps)


def test_the_last_timestep_is_visited_and_the_trajectory_ends_in_the_samples():
    drawn = draw_samples(Drawing(rung(), "ddim", SAMPLING.model_copy(update={"spacing": "leading"}), "all", 8, seed=0))
    assert drawn.timesteps[0] == 999
    assert drawn.timesteps[-1] == 0
    assert torch.equal(drawn.final, drawn.samples[:4])
    torch.testing.assert_close(drawn.predicted[-1], drawn.final)  # the last DDIM step lands on the predicted x_0
    assert drawn.nfe == 1000


def test_images_come_out_as_bytes_and_never_wrap():
    bright = rung(network=GaussianDenoiser(mean=1.2, deviation=0.01), sample_shape=(1, 4, 4), normalisation=IMAGES)
    drawn = draw_samples(Drawing(bright, "ddim", SAMPLING, 50, 8, seed=0))
    assert drawn.samples.dtype == torch.uint8
    assert drawn.samples.min() > 250


def test_frames_are_even_and_include_both_ends():
    assert frame_indices(range(1001), 3) == [0, 500, 1000]
    assert frame_indices(range(4), 10) == [0, 1, 2, 3]
    assert frame_indices(range(50), 50) == list(range(50))
    assert frame_indices([9.5, 6, 6, 3, 3, 0, 0], 10) == [0, 2, 4, 6]
    assert frame_indices([9.5, 6, 6, 3, 3, 0, 0], 2) == [0, 6]


def test_guidance_of_scale_one_is_the_conditional_model_bit_for_bit():
    conditional = rung(num_classes=2, null_label=2)
    x, labels = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    prediction = guided(conditional, labels, SAMPLING, torch.float32)(x, torch.tensor(300))
    assert torch.equal(prediction, conditional.network(x, torch.full((4,), 300), labels))


def guidance(scale, interval=(0.0, 1.0)):
    return SAMPLING.model_copy(update={"guidance_scale": scale, "guidance_interval": list(interval)})


def test_guidance_of_scale_nought_is_the_unconditional_model_bit_for_bit():
    conditional = rung(num_classes=2, null_label=2)
    x, t, labels = torch.randn(4, 2), torch.tensor(300), torch.tensor([0, 1, 0, 1])
    null = conditional.network(x, t.expand(4), torch.full((4,), 2))
    assert torch.equal(guided(conditional, labels, guidance(0.0), torch.float32)(x, t), null)


def test_evaluations_are_counted_as_they_happen():
    """NFE: Heun's 2N - 1; two for one where guidance mixes two predictions."""

    class Counting(GaussianDenoiser):
        calls = 0

        def forward(self, *arguments):
            Counting.calls += 1
            return super().forward(*arguments)

    for sampler, settings, expected in [
        ("ddim", SAMPLING, 20),
        ("dpm_solver", SAMPLING, 20),
        ("heun", SAMPLING, 39),
        ("ddim", guidance(2.0), 40),
        ("heun", guidance(2.0), 78),
        ("ddim", guidance(2.0, (0.0, 0.5)), 30),
        ("ddim", guidance(2.0, (0.5, 0.5)), 20),
        ("ddim", guidance(0.0), 20),
        ("heun", guidance(0.0, (0.0, 0.5)), 39),
    ]:
        Counting.calls = 0
        drawn = draw_samples(
            Drawing(rung(network=Counting(), num_classes=2, null_label=2), sampler, settings, 20, 8, seed=0)
        )
        assert drawn.nfe == Counting.calls == expected, (sampler, settings)


def test_sampling_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draw_samples(Drawing(replace(rung()), "ddpm", SAMPLING, 10, 8, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


# Mistakes of others


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 10, 50])
def test_no_sampler_skips_its_last_step(sampler, spacing, steps):
    """Where the data are one single point, whoever takes every step arrives there, without any noise left."""
    one_point = rung(network=GaussianDenoiser(deviation=0.0))
    drawn = draw_samples(
        Drawing(one_point, sampler, SAMPLING.model_copy(update={"spacing": spacing}), steps, 4, seed=0)
    )
    torch.testing.assert_close(drawn.samples, torch.full((4, 2), 1.5), atol=1e-3, rtol=0)  # t = 0 has noise of 0.01


NOISIEST = {"eta": 1.0, "variance_type": "fixed_large"}


@pytest.mark.parametrize("sampler", SAMPLERS[:4])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("steps", [1, 10, 15, 600])
def test_our_samplers_leave_no_noise_in_finished_samples(sampler, spacing, steps):
    """Whatever timestep comes last, whether or not the steps divide T, and however much noise the others add."""
    one_point = rung(network=GaussianDenoiser(deviation=0.0))
    drawing = Drawing(
        one_point, sampler, SAMPLING.model_copy(update={"spacing": spacing, **NOISIEST}), steps, 4, seed=0
    )
    drawn = draw_samples(drawing)
    torch.testing.assert_close(drawn.samples, torch.full((4, 2), 1.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(drawn.final, drawn.predicted[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trajectories_are_states_of_the_forward_process(sampler):
    """x_t along the way has the mean and deviation of q(x_t), whatever units the sampler itself computes in."""
    settings = SAMPLING.model_copy(update={"trajectory_count": 2000, "batch_size": 2000, "trajectory_frames": 6})
    drawn = draw_samples(Drawing(rung(), sampler, settings, 100, 2000, seed=0))
    for x_t, t in zip(drawn.states, drawn.timesteps, strict=True):
        alpha_bar = GaussianDenoiser().alpha_bar[t].item()
        deviation = (alpha_bar * 0.3**2 + 1 - alpha_bar) ** 0.5
        assert x_t.mean(0).tolist() == pytest.approx([1.5 * alpha_bar**0.5] * 2, abs=0.06)
        assert x_t.std(0).tolist() == pytest.approx([deviation] * 2, abs=0.05)


def test_training_and_sampling_have_one_range_of_values():
    """A network that answers with the training batch, as training sees it, draws the very bytes of that batch."""
    pixels = torch.randint(256, (8, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[0, 0, 0, :2] = torch.tensor([0, 255])
    schedule = SCHEDULE.model_copy(update={"prediction_type": "sample"})
    images = rung(sample_shape=(1, 4, 4), normalisation=IMAGES, schedule=schedule)
    training = TRAINING.model_copy(update={"batch_size": 8})
    batch = draw_batch(Task(images, None, pixels, torch.zeros(8), training, seed=0), step=0)
    assert (batch.x0.min(), batch.x0.max()) == (-1, 1)

    class Repeats(GaussianDenoiser):
        def forward(self, sample, timestep, class_labels=None):
            return batch.x0

    drawn = draw_samples(Drawing(replace(images, network=Repeats()), "ddpm", SAMPLING, 10, 8, seed=0)).samples
    assert sorted(map(bytes, drawn.numpy())) == sorted(map(bytes, pixels.numpy()))


def test_a_diverged_network_gives_an_error_and_no_black_images():
    images = rung(network=GaussianDenoiser(mean=float("nan")), sample_shape=(1, 4, 4), normalisation=IMAGES)
    with pytest.raises(UserError, match="NaN: the samples diverged"):
        draw_samples(Drawing(images, "ddim", SAMPLING, 10, 8, seed=0))


def test_drawing_samples_while_training_repeats_no_noise_and_changes_no_weight():
    """Between two steps of training, as a preview does."""
    settings = TRAINING.model_copy(update={"steps": 6})
    network = MLPNetwork(name="mlp", hidden_size=8, hidden_layers=1, time_embedding_size=4)
    data, losses, weights = torch.randn(32, 2, generator=torch.Generator().manual_seed(0)), [], []
    for interrupted in (False, True):
        trained = rung(network=build_network(network, (2,), None, 0, "gaussian"))
        losses.append([])
        task = Task(trained, build_scheduler("ddpm", SCHEDULE), data, torch.zeros(32), settings, seed=0)
        for step in train(task):
            losses[-1].append(step.loss.item())
            if interrupted:
                draw_samples(Drawing(trained, "ddpm", SAMPLING, 5, 8, seed=0))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in trained.network.parameters()]))
    assert losses[0] == losses[1]
    assert torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_zero_terminal_snr_ends_the_bias_of_starting_from_pure_noise(sampler):
    """arXiv 2305.08891: where x_T keeps some of x_0, a start from N(0, 1) draws samples to the middle."""

    class GaussianVelocity(GaussianDenoiser):
        def __init__(self, alpha_bar):
            super().__init__(mean=8.0, deviation=1.0)
            self.alpha_bar = alpha_bar

        def forward(self, sample, timestep, class_labels=None):
            alpha_bar = self.alpha_bar[timestep][:, None]
            x_0 = 8 + alpha_bar.sqrt() * (sample - alpha_bar.sqrt() * 8)  # of unit variance, x_t too
            noise = (1 - alpha_bar).sqrt() * (sample - alpha_bar.sqrt() * 8)
            return (alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0).float()

    means = {}
    for rescaled in (False, True):
        changes = {"rescale_betas_zero_snr": rescaled, "prediction_type": "v_prediction", "beta_end": 0.01}
        schedule = SCHEDULE.model_copy(update=changes)
        gaussian = rung(network=GaussianVelocity(forward_process(schedule).alpha_bar), schedule=schedule)
        settings = SAMPLING.model_copy(update={"batch_size": 1000})
        means[rescaled] = draw_samples(Drawing(gaussian, sampler, settings, 50, 1000, seed=0)).samples.mean().item()
    assert means[True] == pytest.approx(8, abs=0.1)
    assert means[False] < means[True] - 0.02
