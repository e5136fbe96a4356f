"""Ten failures that are reported again and again, each small, each with its mend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from diffusion_ladder.data.normalise import IMAGES, Normalisation, normalise
from diffusion_ladder.diffusion.exact import data_set_x0, prediction_of
from diffusion_ladder.diffusion.targets import parts_of
from diffusion_ladder.diffusion.timesteps import spaced_timesteps
from diffusion_ladder.evaluation.images import frechet_distance
from diffusion_ladder.evaluation.memorisation import copied, nearest
from diffusion_ladder.evaluation.spectrum import power_spectrum, two_pixel_share
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.known_failures.small import (
    MLP,
    SCHEDULE,
    SEED,
    TRAINING,
    ZERO_TERMINAL_SNR,
    as_pixels,
    digits,
    drawn,
    ideally_drawn,
    moons,
    pure_noise,
    share_off_the_moons,
    spread,
    task_of,
    trained,
    trained_on_moons,
)
from diffusion_ladder.networks.unet import Upsample
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import TimestepDensity
from diffusion_ladder.randomness import generator
from diffusion_ladder.schedulers.ddim import ddim_step
from diffusion_ladder.training.checkpoint import restore_state, state_tensors
from diffusion_ladder.training.loop import Task, TrainingState, indices_of, initial_state, train

AS_THEY_ARE = Normalisation(mean=(0.0,), std=(1.0,), bytes=False)


@dataclass(frozen=True)
class Finding:
    """What was measured, and what can be seen.

    Attributes:
        numbers: by what they are, the one to look at first.
        picture: (N, 2) points or (N, 1, H, W) uint8 images, where there is something to see.
    """

    numbers: Mapping[str, float]
    picture: Tensor | None = None


def only_noise(mended: bool) -> Finding:
    """A network that predicts epsilon is sampled from as if it predicted x_0; mended: as it was trained."""
    rung, _ = trained_on_moons()
    if not mended:
        rung = replace(rung, schedule=rung.schedule.model_copy(update={"prediction_type": "sample"}))
    samples = drawn(rung)
    return Finding({"share of samples off the data's curves": share_off_the_moons(samples)}, samples)


def washed_out(mended: bool) -> Finding:
    """Trained on [0, 1], drawn as if it were [-1, 1]; mended: trained on [-1, 1]. The denoiser is the ideal one."""
    stored = spread(digits().train, 500)
    data = normalise(stored, IMAGES) if mended else stored / 255
    samples = as_pixels(ideally_drawn(data, 16))
    return Finding({"darkest grey level, of 0 to 255": float(samples.min())}, samples)


def grey_backgrounds(mended: bool) -> Finding:
    """A schedule that leaves some of the data in x_T, while samples start from pure noise; mended: one that doesn't.

    Digits of 7 x 7 pixels on grounds from black to dark grey. The network learns to read the ground off x_T, and takes
    pure noise, whose mean is the middle, for a brighter one.
    """
    data = on_dark_grounds(digits().train)
    schedule = SCHEDULE.model_copy(
        update={"prediction_type": "sample", "beta_end": 0.002, "rescale_betas_zero_snr": mended}
    )
    network, settings = MLP.model_copy(update={"hidden_size": 128}), TRAINING.model_copy(update={"steps": 250})
    rung, *_ = trained(task_of(data, AS_THEY_ARE, network, schedule, settings))
    sets = {"of the samples": drawn(rung, 200), "of the data": data}
    images = {whose: as_pixels(values.reshape(-1, 1, 7, 7)) for whose, values in sets.items()}
    corners = {whose: values[:, 0, ::6, ::6].double() for whose, values in images.items()}
    numbers = {
        f"mean grey level of the backgrounds, {whose}": float(values.mean()) for whose, values in corners.items()
    }
    return Finding(numbers, images["of the samples"][:16])


def on_dark_grounds(images: Tensor) -> Tensor:
    """Digits (N, 1, 28, 28) as (N, 49) in [-1, 1], each on a ground of its own between -1 and -0.5."""
    ink = nn.functional.avg_pool2d(images / 255, 4).flatten(1)
    ground = -1 + 0.5 * torch.rand(len(ink), 1, generator=generator(SEED, "known_failures", "grounds"))
    return ground + (1 - ground) * ink


def copies(mended: bool) -> Finding:
    """Trained on 8 points; mended: on all that there are. Copies are much nearer to one example than to any other."""
    data = moons().train if mended else moons().train[:8]
    rung = trained_on_moons()[0] if mended else trained(task_of(data, moons().normalisation))[0]
    samples = drawn(rung)
    shares = {"share of samples that are copies": samples, "the same of held-out points": moons().test}
    return Finding({what: share_copied(points, data) for what, points in shares.items()}, samples)


def share_copied(points: Tensor, data: Tensor) -> float:
    """The share of points (N, 2) that are three times nearer to one example than to any other."""
    return float(copied(nearest(points, data).distances, 1 / 3).double().mean())


def repeated_batches(mended: bool) -> Finding:
    """Stopped in the middle of an epoch; what goes on knows the weights but not the step. Mended: the step, too."""
    data, settings = moons().train[:1280], TRAINING.model_copy(update={"steps": 10, "batch_size": 128})
    without_stop, stopped, resumed = (task_of(data, moons().normalisation, settings=settings) for _ in range(3))
    expected, state, after = (initial_state(task.rung, settings) for task in (without_stop, stopped, resumed))
    train_on(without_stop, expected, 10)
    before_the_stop = train_on(stopped, state, 5)
    restore_state(after, state_tensors(state), steps=5 if mended else 0)
    shown = torch.cat([before_the_stop, train_on(resumed, after, 5)])
    return Finding(
        {
            "share of the examples that a whole epoch never showed": 1 - len(shown.unique()) / len(data),
            "largest difference of a weight from the training without a stop": float(
                (weights(expected) - weights(after)).abs().max()
            ),
        }
    )


def train_on(task: Task, state: TrainingState, steps: int) -> Tensor:
    """Train for so many steps more; the examples that they show, (steps B,) indices."""
    return torch.cat([indices_of(task, step.number - 1) for step in islice(train(task, state), steps)])


def weights(state: TrainingState) -> Tensor:
    """All weights of a network in training."""
    return nn.utils.parameters_to_vector(state.network.parameters()).detach()


def average_that_never_moves(mended: bool) -> Finding:
    """A decay for long trainings, 0.9999 from the first step, in a short one; mended: 0.99, after a warm-up."""
    changes = {"ema_decay": 0.99, "ema_warmup": 10} if mended else {"ema_decay": 0.9999, "ema_warmup": 1}
    settings = TRAINING.model_copy(update={"steps": 150} | changes)
    task = task_of(moons().train, moons().normalisation, settings=settings)
    state = initial_state(task.rung, settings)
    first = weights(state)
    train_on(task, state, 150)
    way = weights(state) - first
    state.average.copy_to(state.network)
    share = (weights(state) - first).norm() / way.norm()
    return Finding({"share of the way from the first weights to the last": float(share)})


def black_images(mended: bool) -> Finding:
    """The noise is predicted at zero terminal SNR, where x_0 is 0 / 0; mended: v is. The denoiser is the ideal one."""
    data = normalise(spread(digits().train, 500), IMAGES)
    schedule = ZERO_TERMINAL_SNR.model_copy(update={"prediction_type": "v_prediction" if mended else "epsilon"})
    x = unguarded_ddim(data, schedule, 16)
    samples = (127.5 * x + 127.5).round().clamp(0, 255).to(torch.uint8)  # as is often written: NaN becomes 0
    black = (samples == 0).flatten(1).all(1).double().mean()
    values = {"share of images that are all black": float(black), "share of NaN": float(x.isnan().double().mean())}
    return Finding(values, samples)


def unguarded_ddim(data: Tensor, schedule: Schedule, count: int, steps: int = 20) -> Tensor:
    """DDIM as a plain loop, with the ideal denoiser of the data (N, ...), that asks no question: (count, ...)."""
    x, alpha_bar = pure_noise(count, data), forward_process(schedule).alpha_bar
    places = spaced_timesteps("trailing", schedule.T, steps).tolist()
    for t, previous_t in zip(places, [*places[1:], None], strict=True):
        at = alpha_bar[t].item()
        after = alpha_bar[previous_t] if previous_t is not None else alpha_bar.new_tensor(1.0)
        prediction = prediction_of(schedule.prediction_type, data_set_x0(x, at, data), x, at)
        x0, epsilon = parts_of(schedule.prediction_type, prediction, x, at**0.5, (1 - at) ** 0.5)
        x = ddim_step(x0, epsilon, alpha_bar[t], after)
    return x


def falling_loss(mended: bool) -> Finding:
    """Timesteps are drawn where the noise is strong and the loss low; mended: all alike."""
    if mended:
        rung, steps = trained_on_moons()
    else:
        settings = TRAINING.model_copy(
            update={"timestep_density": TimestepDensity(log_snr_mean=-4.0, log_snr_deviation=0.7)}
        )
        rung, steps, _ = trained(task_of(moons().train, moons().normalisation, settings=settings))
    samples = drawn(rung)
    loss = torch.stack([step.loss for step in steps[-50:]]).mean()
    numbers = {"share of samples off the data's curves": share_off_the_moons(samples), "last loss": float(loss)}
    return Finding(numbers, samples)


def checkerboards(mended: bool) -> Finding:
    """A transposed convolution whose kernel (3) its stride (2) doesn't divide; mended: repeated pixels, a convolution.

    All weights are alike, so that either should do no more than smooth.
    """
    half = nn.functional.avg_pool2d(spread(digits().test, 16) / 255, 2)  # (16, 1, 14, 14)
    layer = Upsample(1) if mended else nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, (1 / 9 if mended else 4 / 9) if parameter.ndim > 1 else 0.0)
    with torch.no_grad():
        doubled = (255 * layer(half)).round().clamp(0, 255).to(torch.uint8)  # (16, 1, 28, 28)
    return Finding({"share of the power at period two": two_pixel_share(power_spectrum(doubled))}, doubled)


def few_images(mended: bool) -> Finding:
    """The Frechet distance of real digits from real digits, over 50 of each; mended: over all, 2000 and more.

    The features are the 49 means of 4 x 4 pixels.
    """
    first, second = (
        nn.functional.avg_pool2d(normalise(images if mended else spread(images, 50), IMAGES), 4).flatten(1)
        for images in (digits().train, digits().test)
    )
    return Finding({"Frechet distance of real digits from real digits": frechet_distance(first, second)})


@dataclass(frozen=True)
class Failure:
    """A failure that is known.

    Attributes:
        run: shows it, or with True its mend.
        failing, mended: what to look for.
    """

    run: Callable[[bool], Finding]
    failing: str
    mended: str

    @property
    def name(self) -> str:
        """By which the command calls it."""
        return self.run.__name__.replace("_", "-")


FAILURES = [
    Failure(only_noise, "The samples are a cloud: noise.", "The samples lie on two half circles."),
    Failure(
        washed_out,
        "Black has become grey: no pixel of a sample is darker than the middle.",
        "Black is black: samples use the whole range.",
    ),
    Failure(
        grey_backgrounds,
        "Backgrounds are much brighter than those of the data.",
        "Backgrounds are as dark as those of the data.",
    ),
    Failure(
        copies,
        "Most samples sit in heaps on the few training examples.",
        "The samples fill the curves, and are copies no more often than held-out points are, by chance.",
    ),
    Failure(
        repeated_batches,
        "The first half of the epoch was shown twice, the second half never.",
        "Every example was shown once, and the weights are those of a training without a stop.",
    ),
    Failure(
        average_that_never_moves,
        "The average is where it began: what it draws knows nothing of what the network has learnt.",
        "The average has gone along.",
    ),
    Failure(
        black_images,
        "Every value is NaN, and a cast makes NaN black, without a complaint.",
        "The same schedule, the same steps, and digits.",
    ),
    Failure(
        falling_loss,
        "The loss is tiny, and the samples are off the curves: where there is little noise nothing was learnt.",
        "The loss is many times higher, and the samples are better.",
    ),
    Failure(
        checkerboards,
        "A pattern of period two lies over every picture, before anything is learnt.",
        "Smooth: no pattern of period two.",
    ),
    Failure(
        few_images,
        "Real digits seem to be far from real digits: the distance is that of the sample's size.",
        "Real digits are near to real digits.",
    ),
]
BY_NAME = {failure.name: failure for failure in FAILURES}
