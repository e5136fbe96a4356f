"""The exercises: the project's functions pass their checks, and typical wrong answers are caught and named."""

import inspect
import re
import signal
import subprocess
import sys

import pytest
import torch
from conftest import PROJECT, run

from diffusion_ladder.exercises.__main__ import main, solution_of, verdicts
from diffusion_ladder.exercises.catalogue import EXERCISES, answer_in, fault_of
from diffusion_ladder.exercises.faults import Fault
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.sampling.guidance import conditional, is_guided

BY_NAME = {exercise.name: exercise for exercise in EXERCISES}
by_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)


@by_exercise
def test_the_projects_own_function_passes_the_check(exercise):
    exercise.check(exercise.solution)


# Typical wrong answers, by the words that name them


def roots(alpha_bar, x):
    alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64).reshape(-1, *[1] * (x.ndim - 1))
    return alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()


def linear_without_its_end(name, T, beta_start, beta_end):
    return beta_start + (beta_end - beta_start) * torch.arange(T, dtype=torch.float64) / T


def linear_whatever_the_name(name, T, beta_start, beta_end):
    return torch.linspace(beta_start, beta_end, T, dtype=torch.float64)


def scaled_linear_without_square(name, T, beta_start, beta_end):
    power = 1 if name == "linear" else 0.5
    return torch.linspace(beta_start**power, beta_end**power, T, dtype=torch.float64)


def float32_betas(name, T, beta_start, beta_end):
    if name == "linear":
        return torch.linspace(beta_start, beta_end, T)
    return torch.linspace(beta_start**0.5, beta_end**0.5, T) ** 2


def uncapped(alpha_bar_of, T):
    return torch.tensor([1 - alpha_bar_of((t + 1) / T) / alpha_bar_of(t / T) for t in range(T)], dtype=torch.float64)


def upside_down(alpha_bar_of, T):
    return torch.tensor([1 - alpha_bar_of(t / T) / alpha_bar_of((t + 1) / T) for t in range(T)], dtype=torch.float64)


def alphas_for_betas(alpha_bar_of, T):
    return torch.tensor([alpha_bar_of((t + 1) / T) / alpha_bar_of(t / T) for t in range(T)], dtype=torch.float64)


def without_roots(x0, noise, alpha_bar):
    alpha_bar = torch.as_tensor(alpha_bar).reshape(-1, *[1] * (x0.ndim - 1)).float()
    return alpha_bar * x0 + (1 - alpha_bar) * noise


def exchanged_parts(x0, noise, alpha_bar):
    signal, scale = roots(alpha_bar, x0)
    return scale * x0 + signal * noise


def along_the_width(x0, noise, alpha_bar):
    if isinstance(alpha_bar, float) or x0.ndim == 2:
        signal, scale = roots(alpha_bar, x0)
    else:
        signal, scale = alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()
    return signal * x0 + scale * noise


def noise_of_ones_own(x0, noise, alpha_bar):
    signal, scale = roots(alpha_bar, x0)
    return signal * x0 + scale * torch.randn_like(x0)


def in_place(x0, noise, alpha_bar):
    signal, scale = roots(alpha_bar, x0)
    return x0.mul_(signal).add_(scale * noise)


def in_float64(x0, noise, alpha_bar):
    alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64).reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0.double() + (1 - alpha_bar).sqrt() * noise.double()


def angles_of(timesteps, size, divisor, max_period=10_000.0):
    return timesteps[:, None] * max_period ** (-torch.arange(size // 2) / divisor)[None]


def sines_first(timesteps, size, max_period=10_000.0):
    angles = angles_of(timesteps, size, size // 2, max_period)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def one_frequency_less(timesteps, size, max_period=10_000.0):
    angles = angles_of(timesteps, size, size // 2 - 1, max_period)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def alternating(timesteps, size, max_period=10_000.0):
    angles = angles_of(timesteps, size, size // 2, max_period)
    return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1)


def whole_timesteps(timesteps, size, max_period=10_000.0):
    angles = angles_of(timesteps.long(), size, size // 2, max_period)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def loss(target_of, shown="x_t", average=lambda error: error.square().mean(1), labels=True):
    """Algorithm 1 with a part exchanged."""

    def losses_of(rung, scheduler, batch, weighting, precision):
        x_t = scheduler.add_noise(batch.x0, batch.noise, batch.timesteps)
        seen = {"x_t": x_t, "x_0": batch.x0}[shown]
        prediction = rung.network(seen, batch.timesteps, batch.labels if labels else None)
        return average(prediction - target_of(rung, batch))

    return losses_of


def noise_always(rung, batch):
    return batch.noise


def as_asked(rung, batch):
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.01, 1000, dtype=torch.float64), 0)[batch.timesteps]
    signal, scale = roots(alpha_bar, batch.x0)
    velocity = signal * batch.noise - scale * batch.x0
    return batch.noise if rung.schedule.prediction_type == "epsilon" else velocity


def never_moves(self, network, decay):
    for average, parameter in zip(self.average, network.parameters(), strict=True):
        average = decay * average + (1 - decay) * parameter  # noqa: PLW2901


def decay_at_the_wrong_place(self, network, decay):
    self.average = [(1 - decay) * a + decay * p.detach() for a, p in zip(self.average, network.parameters())]  # noqa: B905


def with_gradient(self, network, decay):
    self.average = [decay * a + (1 - decay) * p for a, p in zip(self.average, network.parameters())]  # noqa: B905


@torch.no_grad()
def into_the_network(self, network, decay):
    for average, parameter in zip(self.average, network.parameters(), strict=True):
        parameter.mul_(1 - decay).add_(average, alpha=decay)
        average.copy_(parameter)


@torch.no_grad()
def nought_point_nine(self, network, decay):
    for average, parameter in zip(self.average, network.parameters(), strict=True):
        average.lerp_(parameter, 0.1)


def reads(epsilon=None, sample=None, v_prediction=None):
    """The right reading of a prediction, but for one type."""

    def x0_and_epsilon(prediction_type, output, x_t, alpha_bar):
        signal, scale = roots(alpha_bar, x_t)
        right = {
            "epsilon": lambda *_: ((x_t - scale * output) / signal, output),
            "sample": lambda *_: (output, (x_t - signal * output) / scale),
            "v_prediction": lambda *_: (signal * x_t - scale * output, scale * x_t + signal * output),
        }
        changed = {"epsilon": epsilon, "sample": sample, "v_prediction": v_prediction}[prediction_type]
        return (changed or right[prediction_type])(output, x_t, signal, scale)

    return x0_and_epsilon


def ddpm(x_t, x0, alpha_bar, alpha_bar_previous, sigma=0.0, noise=None):
    alpha = alpha_bar / alpha_bar_previous
    mean = alpha_bar_previous.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - alpha_bar_previous) * x_t
    return mean / (1 - alpha_bar) + (0 if noise is None else sigma * noise)


def noise_in_the_last_step(x_t, x0, alpha_bar, alpha_bar_previous, sigma=0.0, noise=None):
    z = torch.randn_like(x_t) if noise is None else noise
    return ddpm(x_t, x0, alpha_bar, alpha_bar_previous, sigma or 0.01, z)


def variance_for_deviation(x_t, x0, alpha_bar, alpha_bar_previous, sigma=0.0, noise=None):
    return ddpm(x_t, x0, alpha_bar, alpha_bar_previous, sigma**2, noise)


def mean_alone(x_t, x0, alpha_bar, alpha_bar_previous, sigma=0.0, noise=None):
    return ddpm(x_t, x0, alpha_bar, alpha_bar_previous)


def exchanged(x_t, x0, alpha_bar, alpha_bar_previous, sigma=0.0, noise=None):
    return ddpm(x0, x_t, alpha_bar, alpha_bar_previous, sigma, noise)


def ddim(x0, epsilon, alpha_bar, alpha_bar_previous, eta=0.0, noise=None, given_way=True, scale=1.0):
    variance = (1 - alpha_bar_previous) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_previous) * eta**2
    direction = (1 - alpha_bar_previous - (variance if given_way else 0)).sqrt()
    x = alpha_bar_previous.sqrt() * x0 + direction * epsilon
    return x if noise is None else x + scale * variance.sqrt() * noise


def stays_at_t(x0, epsilon, alpha_bar, alpha_bar_previous, eta=0.0, noise=None):
    return ddim(x0, epsilon, alpha_bar, alpha_bar, eta, noise)


def direction_that_keeps_its_length(*arguments):
    return ddim(*arguments, given_way=False)


def noise_left_out(*arguments):
    return ddim(*arguments, scale=0.0)


def eta_ignored(x0, epsilon, alpha_bar, alpha_bar_previous, eta=0.0, noise=None):
    return ddim(x0, epsilon, alpha_bar, alpha_bar_previous)


def guides(mix, null_label=None, interval=True, evaluations_saved=True, null_needed=True):
    """Guidance with a part exchanged."""

    def guided(rung, labels, settings, precision):
        with_label = conditional(rung, labels, precision)
        if labels is None or (null_needed and rung.null_label is None):
            return with_label
        nulls = torch.full_like(labels, rung.null_label if null_label is None else null_label)
        without_label = conditional(rung, nulls, precision)

        def predict(samples, timestep):
            asked = settings if interval else settings.model_copy(update={"guidance_interval": None})
            acts = is_guided(float(timestep), rung.schedule.T, asked)
            if not acts and evaluations_saved:
                return with_label(samples, timestep)
            given, null = with_label(samples, timestep), without_label(samples, timestep)
            return mix(null, given, settings.guidance_scale) if acts else given

        return predict

    return guided


def eq_6(null, given, scale):
    return null + scale * (given - null)


def nothing(*arguments):
    pass


def nan(x0, noise, alpha_bar):
    return x0 * float("nan")


def a_float(x0, noise, alpha_bar):
    return 0.5


WRONG = [
    ("make_beta", linear_without_its_end, r"the last beta is not beta_end"),
    ("make_beta", linear_whatever_the_name, r"right for linear; scaled_linear is linear in sqrt\(beta\), not in beta"),
    ("make_beta", scaled_linear_without_square, r"right for linear; for scaled_linear the square is missing"),
    ("make_beta", float32_betas, r"values are right, but torch.float32; wanted is torch.float64"),
    ("beta_of_alpha_bar", uncapped, r"right, but for the cap"),
    ("beta_of_alpha_bar", upside_down, r"the ratio is upside down"),
    ("beta_of_alpha_bar", alphas_for_betas, r"these are the alphas"),
    ("add_noise", without_roots, r"the roots are missing"),
    ("add_noise", lambda x0, noise, a: without_roots(noise, x0, a), r"alpha_bar_t = 0.36 .*: the value at .* right is"),
    ("add_noise", exchanged_parts, r"signal and noise are exchanged"),
    ("add_noise", along_the_width, r"right for points; of images, alpha_bar_t acts along the width"),
    ("add_noise", noise_of_ones_own, r"the same arguments give another x_t each time"),
    ("add_noise", in_place, r"x0 is changed in place"),
    ("add_noise", in_float64, r"the values are right, but torch.float64; wanted is torch.float32"),
    ("add_noise", nothing, r"nothing \(is a `return` missing\?\) came back where a tensor \(4, 2\) is wanted"),
    ("add_noise", nan, r"8 of 8 values are NaN or infinite"),
    ("add_noise", a_float, r"a float came back"),
    ("sinusoidal_embedding", sines_first, r"right but for the order"),
    ("sinusoidal_embedding", one_frequency_less, r"divided by size/2 - 1"),
    ("sinusoidal_embedding", alternating, r"cosines and sines alternate"),
    ("sinusoidal_embedding", whole_timesteps, r"right for integers; fractions"),
    ("losses_of", loss(lambda rung, batch: batch.x0), r"the target is x_0; this network predicts the noise"),
    ("losses_of", loss(noise_always), r"right for epsilon; with v_prediction the target is still the noise"),
    ("losses_of", loss(noise_always, shown="x_0"), r"the network is shown the clean x_0"),
    ("losses_of", loss(noise_always, average=lambda e: e.square().mean()), r"the average is over the whole batch"),
    ("losses_of", loss(as_asked, labels=False), r"right without classes; the network is not given the labels"),
    ("losses_of", loss(as_asked), r"right without weights; the weights are left out"),
    ("update", never_moves, r"the average never moves"),
    ("update", decay_at_the_wrong_place, r"the decay is at the wrong place"),
    ("update", with_gradient, r"the average keeps the graph"),
    ("update", into_the_network, r"the network's own parameters are changed"),
    ("update", nought_point_nine, r"right at decay 0.9; the eleventh step at decay 0.5"),
    ("x0_and_epsilon", reads(epsilon=lambda e, x, s, n: (x - n * e, e)), r"x_0 lacks the division"),
    ("x0_and_epsilon", reads(sample=lambda x0, x, s, n: (x0, x - s * x0)), r"epsilon lacks the division"),
    (
        "x0_and_epsilon",
        reads(v_prediction=lambda v, x, s, n: (s * x + n * v, n * x - s * v)),
        r"right for epsilon and sample; for v_prediction the sign is wrong",
    ),
    ("x0_and_epsilon", lambda kind, output, x, a: output, r"a Tensor came back where the pair"),
    ("ddpm_step", noise_in_the_last_step, r"right for t > 0; at t = 0 you still add noise"),
    ("ddpm_step", variance_for_deviation, r"right up to the noise: sigma is squared"),
    ("ddpm_step", mean_alone, r"right up to the noise: sigma z is not added"),
    ("ddpm_step", exchanged, r"the two coefficients are exchanged"),
    ("ddim_step", stays_at_t, r"this is x_t, where the step began"),
    ("ddim_step", direction_that_keeps_its_length, r"right for eta = 0; for eta > 0 the direction must give way"),
    ("ddim_step", noise_left_out, r"right for eta = 0; for eta > 0 .* sigma z is not added"),
    ("ddim_step", eta_ignored, r"right for eta = 0; eta and the noise are ignored"),
    ("guided", guides(lambda null, given, w: given + w * (given - null)), r"the scale counts from 0"),
    ("guided", guides(lambda null, given, w: given + w * (null - given)), r"the two predictions are exchanged"),
    ("guided", guides(lambda null, given, w: given), r"not guided"),
    ("guided", guides(eq_6, null_label=0), r"label 0 stands for no label, but it is a class"),
    ("guided", guides(eq_6, interval=False), r"right without an interval; with \[0.2, 0.7\) t = 0 is not guided"),
    (
        "guided",
        guides(eq_6, evaluations_saved=False),
        r"the values are right; at scale 1 the network is evaluated twice",
    ),
    ("guided", lambda rung, labels, settings, precision: labels, r"a Tensor came back where a function predict"),
]


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_a_typical_wrong_answer_is_caught_and_named(name, answer, words):
    with pytest.raises(Fault, match=words) as caught:
        BY_NAME[name].check(answer)
    assert "\n" not in str(caught.value)


def test_every_exercise_has_wrong_answers():
    assert {name for name, _, _ in WRONG} == set(BY_NAME)


# The reader's files


@by_exercise
def test_the_file_asks_for_the_projects_function_with_its_arguments(exercise):
    asked = inspect.signature(answer_in(PROJECT / exercise.file, exercise.name))
    assert list(asked.parameters) == list(inspect.signature(exercise.solution).parameters)
    defaults = [parameter.default for parameter in asked.parameters.values()]
    assert defaults == [each.default for each in inspect.signature(exercise.solution).parameters.values()]


EXERCISE = BY_NAME["add_noise"]
HEAD = "def add_noise(x0, noise, alpha_bar_t):\n    '''x_t.'''\n"


@pytest.fixture
def written(tmp_path):
    """Writes a reader's file and gives what is said of it."""

    def say(text):
        (tmp_path / "exercises").mkdir(exist_ok=True)
        (tmp_path / EXERCISE.file).write_text(text)
        ((_, said),) = verdicts([EXERCISE], tmp_path)
        assert (tmp_path / EXERCISE.file).read_text() == text  # the reader's own
        assert [path.name for path in (tmp_path / "exercises").iterdir()] == [EXERCISE.file.name]
        return said.replace(f"{tmp_path}/", "")

    return say


def test_a_right_answer_in_a_file_is_right(written):
    assert written(f"{HEAD}    from diffusion_ladder.diffusion.schedules import add_noise as own\n"
                   "    return own(x0, noise, alpha_bar_t)\n") == ""  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}    ...\n", r"not written yet: exercises/03_add_noise.py"),
        (f"{HEAD}    pass\n", r"not written yet: exercises/03_add_noise.py"),
        (f"{HEAD}    x_t = x0\n", r"alpha_bar_t = 0.36 .*: nothing \(is a `return` missing\?\) came back .*"),
        (f"{HEAD}    return\n  x0\n", r"exercises/03_add_noise.py, line 4: IndentationError: .*"),
        ("import nosuch\n", r"exercises/03_add_noise.py, line 1: ModuleNotFoundError: .*"),
        ("x = 1\n", r"exercises/03_add_noise.py has no function add_noise: keep its name"),
        (f"{HEAD}    return x0 @ noise\n", r"exercises/03_add_noise.py, line 3: RuntimeError: mat1 and mat2 .*"),
        (f"{HEAD}    raise SystemExit('done')\n", r"exercises/03_add_noise.py, line 3: SystemExit: done"),
        (
            f"{HEAD}    return alpha_bar_t ** 0.5 * x0 + (1 - alpha_bar_t) ** 0.5 * noise\n",
            r"exercises/03_.*: RuntimeError: .*",
        ),
        (f"{HEAD}    return torch.sqrt(x0)\n", r"exercises/03_add_noise.py, line 3: NameError: .*"),
        (f"{HEAD}    return add_noise(x0, noise, 1)\n", r"exercises/03_add_noise.py, line 3: RecursionError: .*"),
        ("def add_noise(x0, noise):\n    return x0\n", r"exercises/03_add_noise.py: TypeError: .*"),
        (f"{HEAD}    return x0[0]\n", r".*: the shape is \(2,\), wanted is \(4, 2\)"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(written, text, said):
    assert re.fullmatch(said, written(text))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{HEAD}    while True:\n        x0 = x0 + noise\n", "[34]"),
        (
            f"{HEAD}    while True:\n        try:\n            x0 + 1\n        except Exception:\n            x0 = 0\n",
            "[3-7]",
        ),
        ("while True:\n    pass\n", "[12]"),
    ],
)
def test_an_answer_that_never_ends_is_interrupted(tmp_path, text, line):
    path = tmp_path / EXERCISE.file.name
    path.write_text(text)
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(UserError, match=rf"{EXERCISE.file.name}, line {line}: TooLong: still running after 0.3 s"):
        fault_of(EXERCISE, path, seconds=0.3)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_missing_file_is_told_with_the_way_to_get_it_back(tmp_path):
    with pytest.raises(UserError, match="is missing: `git checkout"):
        fault_of(EXERCISE, tmp_path / EXERCISE.file)


@by_exercise
def test_the_solution_is_the_projects_function_under_its_file(exercise):
    head, *lines = solution_of(exercise).splitlines()
    path, number = re.fullmatch(r"# (src/diffusion_ladder/\S+\.py), line (\d+)", head).groups()
    source = (PROJECT / path).read_text().splitlines()[int(number) - 1 :]
    assert [line.strip() for line in lines] == [line.strip() for line in source[: len(lines)]]
    compile("\n".join(lines), path, "exec")


@pytest.fixture
def solved(tmp_path, monkeypatch):
    """A folder in which every exercise is answered by the project's own function."""
    (tmp_path / "exercises").mkdir()
    for exercise in EXERCISES:
        module, name = exercise.solution.__module__, exercise.solution.__qualname__
        (tmp_path / exercise.file).write_text(f"import {module} as own\n{exercise.name} = own.{name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_command_checks_all_and_succeeds_where_all_are_right(solved):
    ran = run([sys.executable, "-m", "diffusion_ladder.exercises"], solved, PYTHONPATH=f"{PROJECT}/src")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [line.split()[-1] for line in ran.stdout.splitlines()] == ["right"] * 10


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["3"], True, r" 3  add_noise +alpha_bar_t = 0.36 for the whole batch: the value at .*\n"),
        (["4"], False, r" 4  sinusoidal_embedding +right\n"),
        (["4", "--solution"], None, r"# src/diffusion_ladder/networks/embeddings.py, line \d+\ndef sinusoidal_(.|\n)*"),
        (["12"], "there is no exercise 12: they are numbered from 1 to 10", r""),
    ],
)
def test_the_command_checks_one_and_its_exit_code_says_whether_it_is_right(
    arguments, code, said, solved, monkeypatch, capsys
):
    (solved / EXERCISE.file).write_text(f"{HEAD}    return x0\n")
    monkeypatch.setattr(sys, "argv", ["exercises", *arguments])
    try:
        main()
        found = None
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    assert re.fullmatch(said, capsys.readouterr().out)


def test_make_passes_the_number_on():
    for target, expected in (("exercise", "exercises 4\n"), ("solution", "exercises 4 --solution\n")):
        planned = subprocess.run(
            ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/installed", target, "N=4"],
            cwd=PROJECT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert planned.endswith(expected)
