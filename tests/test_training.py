"""The training loop against a plain rewriting of algorithm 1, and against closed forms."""

from collections import Counter
from itertools import permutations

import pytest
import torch
from torch import nn

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.network import MLPNetwork
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import EmaChoice, LossWeight, Training
from diffusion_ladder.rungs import Rung, build_network, build_scheduler
from diffusion_ladder.training.checkpoint import restore_state, state_tensors
from diffusion_ladder.training.ema import ema_decay
from diffusion_ladder.training.loop import (
    Task,
    batch_indices,
    draw_batch,
    indices_of,
    initial_state,
    learning_rate_at,
    losses_of,
    train,
    zero_loss,
)
from diffusion_ladder.training.optimisers import build_optimiser
from diffusion_ladder.training.pairing import transported

SCHEDULE = Schedule(
    name="linear",
    T=1000,
    beta_start=1e-4,
    beta_end=0.01,
    prediction_type="epsilon",
)
NETWORK = MLPNetwork(name="mlp", hidden_size=16, hidden_layers=1, time_embedding_size=8)
PLANE = Normalisation(mean=(1.0, -2.0), std=(3.0, 0.5), bytes=False)
TRAINING = Training(
    seed=0,
    steps=20,
    batch_size=64,
    learning_rate=1e-2,
    warmup_steps=4,
    weight_decay=0.0,
    optimiser="adamw",
    adam_betas=[0.9, 0.99],
    gradient_clip=1.0,
    ema_decay=0.9,
    ema_warmup=10,
    log_every=5,
)


def weighting_of(name, gamma):
    """A weighting by name; "uniform" is none."""
    return None if name == "uniform" else LossWeight(name=name, gamma=gamma)


def new_rung(**changes):
    values = {
        "model": "test",
        "dataset": "plane",
        "network": build_network(NETWORK, (2,), None, 0, "test"),
        "settings": NETWORK,
        "schedule": SCHEDULE,
        "sample_shape": (2,),
        "num_classes": 0,
        "null_label": None,
        "normalisation": PLANE,
    }
    return Rung(**(values | changes))


def points(count=100):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 0.5])


def task_of(rung=None, data=None, labels=None, settings=TRAINING, seed=0, **changes):
    """What a training is given; unless told otherwise, a new rung, a hundred points and an own scheduler."""
    rung, data = rung or new_rung(), points() if data is None else data
    labels = torch.zeros(len(data), dtype=torch.int64) if labels is None else labels
    return Task(rung, build_scheduler("ddpm", rung.schedule), data, labels, settings, seed, **changes)


def test_each_example_is_seen_once_before_any_is_seen_twice():
    seen = torch.cat([batch_indices(step, 30, 100, 0, "test") for step in range(10)])
    for epoch in range(3):
        assert sorted(seen[100 * epoch : 100 * (epoch + 1)].tolist()) == list(range(100))
    assert not torch.equal(seen[:100], seen[100:200])


def test_a_batch_larger_than_the_data_takes_several_epochs():
    assert Counter(batch_indices(0, 25, 10, 0, "test").tolist()).most_common(1)[0][1] <= 3


def test_every_timestep_is_trained_on_the_last_too():
    rung = new_rung(schedule=SCHEDULE.model_copy(update={"T": 10}))
    drawn = [draw_batch(task_of(rung), step).timesteps for step in range(50)]
    counts = torch.bincount(torch.cat(drawn), minlength=10)
    assert len(counts) == 10
    assert (counts - 320).abs().max() < 5 * 320**0.5  # uniform, within five standard deviations


def test_a_batch_follows_from_the_step_alone():
    once, again, next_one = (draw_batch(task_of(), step) for step in (3, 3, 4))
    assert torch.equal(once.noise, again.noise)
    assert torch.equal(once.x0, again.x0)
    assert not torch.equal(once.noise, next_one.noise)


def test_the_noise_is_standard_normal_and_the_data_are_normalised():
    data = points(10_000) + torch.tensor([1.0, -2.0])
    batch = draw_batch(task_of(data=data, settings=TRAINING.model_copy(update={"batch_size": 10_000})), 0)
    for values in (batch.noise, batch.x0):
        assert values.mean(0).abs().max() < 0.05
        assert (values.std(0) - 1).abs().max() < 0.05


def test_labels_are_dropped_at_the_rate_that_was_asked_for():
    rung = new_rung(num_classes=2, null_label=2)
    settings = TRAINING.model_copy(update={"batch_size": 4000, "label_dropout": 0.1})
    labels = torch.arange(4000) % 2
    batch = draw_batch(task_of(rung, points(4000), labels, settings), 0)
    assert (batch.labels == 2).float().mean() == pytest.approx(0.1, abs=0.02)
    kept = batch.labels != 2
    expected = labels[batch_indices(0, 4000, 4000, 0, "test")]
    assert torch.equal(batch.labels[kept], expected[kept])


def test_class_weights_are_the_shares_of_the_classes_and_all_examples_of_a_class_are_alike():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)[
        torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    ]
    settings = TRAINING.model_copy(update={"batch_size": 20_000, "class_weights": [1.0, 2.0, 1.0]})
    indices = indices_of(task_of(labels=labels, settings=settings), 0)
    shares = labels[indices].bincount() / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.5, 0.25]), rtol=0, atol=0.015)  # four deviations and more
    rare = indices[labels[indices] == 2].bincount(minlength=1000)[labels == 2]
    assert (rare - 500).abs().max() < 5 * 500**0.5
    task = task_of(labels=labels, settings=settings)
    other, again = (indices_of(task, step) for step in (1, 0))  # what the task remembers changes nothing
    assert torch.equal(indices, again)
    assert not torch.equal(indices, other)


def test_without_class_weights_the_examples_are_those_of_the_shuffles():
    labels = torch.arange(100) % 2
    for step in range(5):
        expected = batch_indices(step, TRAINING.batch_size, 100, 3, "test")
        assert torch.equal(indices_of(task_of(labels=labels, seed=3), step), expected)


def test_a_class_weight_without_examples_is_refused():
    settings = TRAINING.model_copy(update={"class_weights": [1.0, 1.0, 1.0]})
    with pytest.raises(UserError, match="class_weights: the training split has no example of class 1"):
        indices_of(task_of(labels=torch.tensor([0, 2, 2]), settings=settings), 0)


class Parrot(nn.Module):
    """Predicts zero, whatever it sees: the error is the target itself."""

    def forward(self, sample, timestep, class_labels=None):
        return torch.zeros_like(sample)


def snr_at(timesteps):
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.01, 1000, dtype=torch.float64), 0)[timesteps]
    return alpha_bar / (1 - alpha_bar)


@pytest.mark.parametrize("name", ["ddpm", "diffusers_ddpm"])
@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "p2"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_each_target_and_weight_is_what_its_paper_says(name, weighting, prediction_type):
    schedule = SCHEDULE.model_copy(update={"prediction_type": prediction_type})
    rung = new_rung(network=Parrot(), schedule=schedule)
    batch = draw_batch(task_of(rung), 0)
    snr = snr_at(batch.timesteps)
    signal, noise = (snr / (1 + snr)).sqrt()[:, None], (1 / (1 + snr)).sqrt()[:, None]
    target = {"epsilon": batch.noise, "sample": batch.x0, "v_prediction": signal * batch.noise - noise * batch.x0}
    on_epsilon = {"uniform": None, "min_snr": snr.clamp(max=2.0) / snr, "p2": (1 + snr) ** -2.0}[weighting]
    to_this = {"epsilon": 1, "sample": snr, "v_prediction": snr / (1 + snr)}[prediction_type]
    weight = torch.ones(1) if on_epsilon is None else on_epsilon * to_this
    expected = (weight * target[prediction_type].double().square().mean(1)).mean().float()
    settings = weighting_of(weighting, gamma=2.0)
    loss = losses_of(rung, build_scheduler(name, schedule), batch, settings, torch.float32).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("weighting", ["uniform", "min_snr", "p2"])
@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_training_at_zero_terminal_snr_stays_finite(weighting, prediction_type):
    schedule = SCHEDULE.model_copy(update={"T": 4, "rescale_betas_zero_snr": True, "prediction_type": prediction_type})
    settings = TRAINING.model_copy(update={"loss_weight": weighting_of(weighting, gamma=5.0)})
    rung = new_rung(schedule=schedule)
    steps = list(train(task_of(rung, settings=settings)))
    assert all(step.loss.isfinite() and step.gradient_norm.isfinite() for step in steps)


def test_epsilon_at_zero_terminal_snr_is_not_trained():
    schedule = SCHEDULE.model_copy(update={"rescale_betas_zero_snr": True, "prediction_type": "epsilon"})
    rung = new_rung(schedule=schedule)
    steps = train(task_of(rung))
    with pytest.raises(ValueError, match="pure noise"):
        next(steps)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_loss_of_answering_zero_by_simulation(prediction_type):
    schedule = SCHEDULE.model_copy(update={"prediction_type": prediction_type})
    random = torch.Generator().manual_seed(0)
    x_0 = 0.5 + 0.7 * torch.randn(400_000, generator=random, dtype=torch.float64)
    epsilon = torch.randn(400_000, generator=random, dtype=torch.float64)
    all_alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.01, 1000, dtype=torch.float64), 0)
    alpha_bar = all_alpha_bar[torch.randint(1000, (400_000,), generator=random)]
    velocity = alpha_bar.sqrt() * epsilon - (1 - alpha_bar).sqrt() * x_0
    target = {"epsilon": epsilon, "sample": x_0, "v_prediction": velocity}[prediction_type]
    data_mean_square = 0.5**2 + 0.7**2
    loss = zero_loss(new_rung(schedule=schedule), None, data_mean_square)
    assert loss == pytest.approx(target.square().mean().item(), rel=0.02)
    min_snr = LossWeight(name="min_snr", gamma=5.0)
    per_x_0 = {"epsilon": alpha_bar / (1 - alpha_bar), "sample": torch.ones(()), "v_prediction": 1 / (1 - alpha_bar)}
    weight = (alpha_bar / (1 - alpha_bar)).clamp(max=5) / per_x_0[prediction_type]  # of x_0's squared error
    weighted = zero_loss(new_rung(schedule=schedule), min_snr, data_mean_square)
    assert weighted == pytest.approx((weight * target.square()).mean().item(), rel=0.02)


def test_the_learning_rate_warms_up_and_falls_to_zero():
    settings = TRAINING.model_copy(update={"steps": 1000, "warmup_steps": 10})
    rates = [learning_rate_at(step, settings) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2, rel=1e-3)
    assert rates[500] == pytest.approx(5e-3)
    assert rates[1000] == pytest.approx(0, abs=1e-12)


def test_the_decay_rises_to_its_longest():
    assert ema_decay(1, 0.99, 10) == pytest.approx(2 / 11)
    assert ema_decay(10_000, 0.99, 10) == 0.99


def test_the_loop_is_adamw_on_algorithm_1_with_an_average_after_each_step():
    trained = new_rung()
    steps = list(train(task_of(trained)))
    plain = new_rung()
    optimiser = torch.optim.AdamW(plain.network.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    average = [parameter.detach().clone() for parameter in plain.network.parameters()]
    scheduler = build_scheduler("ddpm", SCHEDULE)
    for step in range(TRAINING.steps):
        optimiser.param_groups[0]["lr"] = learning_rate_at(step, TRAINING)
        batch = draw_batch(task_of(plain), step)
        loss = losses_of(plain, scheduler, batch, None, torch.float32).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.network.parameters(), 1.0)
        optimiser.step()
        decay = min(0.9, (2 + step) / (11 + step))
        average = [
            decay * a + (1 - decay) * p.detach() for a, p in zip(average, plain.network.parameters(), strict=True)
        ]
        assert float(steps[step].loss) == pytest.approx(loss.item(), rel=1e-4)
    for parameter, expected in zip(trained.network.parameters(), average, strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-5)


def test_training_twice_gives_the_same_bits_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    rungs = [new_rung(), new_rung()]
    for rung in rungs:
        list(train(task_of(rung)))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(rungs[0].network.parameters(), rungs[1].network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_lowers_the_loss_below_that_of_predicting_nothing():
    settings = TRAINING.model_copy(update={"steps": 300, "batch_size": 256})
    losses = [float(step.loss) for step in train(task_of(data=points(1000), settings=settings))]
    assert sum(losses[-50:]) / 50 < 0.6  # the zero predictor's is 1


def test_bf16_and_float32_losses_agree_within_two_percent():
    losses = {}
    for precision in (torch.float32, torch.bfloat16):
        losses[precision] = [float(step.loss) for step in train(task_of(precision=precision))]
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.02)
    assert losses[torch.bfloat16] != losses[torch.float32]


def test_optimal_transport_pairs_as_an_exhaustive_search_does_and_keeps_every_noise():
    random = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(6, 2, generator=random), torch.randn(6, 2, generator=random)
    paired = transported(x0, noise)
    orders = [torch.tensor(order) for order in permutations(range(6))]
    least = min(float((x0 - noise[order]).square().sum()) for order in orders)
    assert float((x0 - paired).square().sum()) == pytest.approx(least, rel=1e-6)
    assert sorted(map(tuple, paired.tolist())) == sorted(map(tuple, noise.tolist()))


def test_paired_batches_differ_from_independent_ones_in_the_order_of_the_noise_alone():
    settings = TRAINING.model_copy(update={"pairing": "optimal_transport"})
    independent, paired = (draw_batch(task_of(settings=each), 3) for each in (TRAINING, settings))
    assert torch.equal(independent.x0, paired.x0)
    assert torch.equal(independent.timesteps, paired.timesteps)
    assert not torch.equal(independent.noise, paired.noise)
    assert torch.equal(independent.noise.sort(dim=0).values, paired.noise.sort(dim=0).values)


def test_half_of_the_images_are_mirrored_and_nothing_else_changes():
    images = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).expand(8, -1, -1, -1)
    rung = new_rung(sample_shape=(1, 4, 4), normalisation=IMAGES)
    settings = TRAINING.model_copy(update={"flip": True, "batch_size": 1000})
    plain, flipped = (
        draw_batch(task_of(rung, images, settings=each), 0)
        for each in (settings.model_copy(update={"flip": False}), settings)
    )
    mirrored = (flipped.x0 == plain.x0.flip(3)).flatten(1).all(1)
    assert ((flipped.x0 == plain.x0).flatten(1).all(1) | mirrored).all()
    assert 430 < int(mirrored.sum()) < 570  # 4.4 standard deviations of 1000 fair coins
    assert torch.equal(flipped.noise, plain.noise)


def flatness(matrix):
    """Median of the singular values over the largest: 1 where all are alike."""
    values = torch.linalg.svdvals(matrix)
    return float(values.median() / values.max())


def test_muon_makes_the_singular_values_of_a_hidden_matrix_update_alike_and_adamw_keeps_the_rest():
    networks, before, names = [], [], set()
    for settings in (TRAINING.model_copy(update={"optimiser": "muon"}), TRAINING):
        network = build_network(NETWORK, (2,), None, 0, "test")
        before.append({name: parameter.detach().clone() for name, parameter in network.named_parameters()})
        optimiser = build_optimiser(network, settings, 2)
        x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
        (network(x, torch.arange(256)) - x).square().sum().backward()
        for group in optimiser.param_groups:
            group["lr"] = 0.1
        optimiser.step()
        networks.append(dict(network.named_parameters()))
    muon, adam = networks
    names = {name for name in muon if not torch.equal(muon[name], adam[name])}
    linear = {f"layers.0.{part}.weight" for part in ("linear_1", "linear_2", "time_projection")}
    assert names == linear | {"time_embedding.linear_1.weight", "time_embedding.linear_2.weight"}
    for name in linear:
        update = (muon[name] - before[0][name]).detach()
        assert flatness(update) > 2 * flatness(muon[name].grad), name


def test_muon_lowers_the_loss_and_keeps_all_its_moments_in_one_state():
    settings = TRAINING.model_copy(update={"optimiser": "muon", "steps": 200})
    rung = new_rung()
    state = initial_state(rung, settings)
    losses = [float(step.loss) for step in train(task_of(rung, points(1000), settings=settings), state)]
    assert sum(losses[-50:]) / 50 < 0.7
    assert set(state.optimiser.state) == set(rung.network.parameters())


def test_of_several_averages_the_one_with_the_least_loss_under_new_noise_is_taken():
    choice = EmaChoice(decays=[0.5, 0.9999], batches=4)
    settings = TRAINING.model_copy(update={"steps": 60, "ema_choice": choice, "ema_warmup": 1})
    rung = new_rung()
    task, state = task_of(rung, points(500), settings=settings), initial_state(rung, settings)
    for _ in train(task, state):
        pass
    taken = [parameter.detach().clone() for parameter in rung.network.parameters()]
    losses = {}
    for average in [*state.candidates, state.average]:
        average.copy_to(rung.network)
        batches = [draw_batch(task, step) for step in range(60, 64)]
        losses[average.longest] = float(
            sum(losses_of(rung, task.scheduler, b, None, torch.float32).mean() for b in batches)
        )
    assert state.average.longest == min(losses, key=losses.get)
    assert losses[0.9999] > 1.1 * min(losses.values())  # the first weights are still in it
    assert all(torch.equal(a, b) for a, b in zip(taken, state.average.average, strict=True))


def test_an_average_of_the_same_decay_does_not_depend_on_the_others():
    averages = {}
    for decay, others in ((0.9, [0.99]), (0.99, [])):
        choice = EmaChoice(decays=others, batches=1) if others else None
        settings = TRAINING.model_copy(update={"ema_decay": decay, "ema_choice": choice})
        rung = new_rung()
        state = initial_state(rung, settings)
        for _ in train(task_of(rung, settings=settings), state):
            pass
        averages[decay] = (state.candidates or [state.average])[0].average
    assert all(torch.equal(a, b) for a, b in zip(*averages.values(), strict=True))


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_training_goes_on_from_the_tensors_of_its_state_bit_for_bit(optimiser):
    choice = EmaChoice(decays=[0.5], batches=2)
    settings = TRAINING.model_copy(update={"optimiser": optimiser, "ema_choice": choice})
    rungs = [new_rung(), new_rung(), new_rung()]
    tasks = [task_of(rung, settings=settings) for rung in rungs]
    states = [initial_state(rung, settings) for rung in rungs]
    for _ in train(tasks[0], states[0]):
        pass
    interrupted = train(tasks[1], states[1])
    for _ in range(7):
        next(interrupted)
    kept = {name: tensor.clone() for name, tensor in state_tensors(states[1]).items()}
    restore_state(states[2], kept, 7)
    for _ in train(tasks[2], states[2]):
        pass
    whole, resumed = state_tensors(states[0]), state_tensors(states[2])
    assert set(whole) == set(resumed)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
