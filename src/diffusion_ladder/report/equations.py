"""The equations that the rungs use, each with its source.

Notation of Ho et al. (DDPM, arXiv 2006.11239): timesteps run from 1 to T, where the code counts from 0 to T - 1.
"""

from collections.abc import Collection
from dataclasses import dataclass

from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.samplers import MODULES
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.report.notation import (
    Math,
    bar,
    constant,
    fraction,
    hat,
    identifier,
    norm_squared,
    operator,
    parentheses,
    power,
    root,
    row,
    sub,
    sub_power,
    text,
    under,
)


@dataclass(frozen=True)
class Source:
    """A paper."""

    title: str
    url: str


@dataclass(frozen=True)
class Equation:
    """A formula, what it says, and where it comes from.

    Attributes:
        key: names it in links.
        title: a few words.
        formulas: parts that may stand beside or below each other.
        words: what it says, in plain words with a little Markdown.
        source: the paper.
        place: where in the paper.
    """

    key: str
    title: str
    formulas: tuple[Math, ...]
    words: str
    source: Source
    place: str


DDPM = Source("Ho, Jain and Abbeel 2020 (DDPM)", "https://arxiv.org/abs/2006.11239")
DDIM = Source("Song, Meng and Ermon 2020 (DDIM)", "https://arxiv.org/abs/2010.02502")
VELOCITY = Source("Salimans and Ho 2022", "https://arxiv.org/abs/2202.00512")
GUIDANCE = Source("Ho and Salimans 2022", "https://arxiv.org/abs/2207.12598")
IMPROVED = Source("Nichol and Dhariwal 2021", "https://arxiv.org/abs/2102.09672")
LATENT = Source("Rombach et al. 2021", "https://arxiv.org/abs/2112.10752")
GEODIFF = Source("Xu et al. 2022 (GeoDiff)", "https://arxiv.org/abs/2203.02923")
LIN = Source("Lin et al. 2023", "https://arxiv.org/abs/2305.08891")
MIN_SNR = Source("Hang et al. 2023 (min-SNR)", "https://arxiv.org/abs/2303.09556")
P2 = Source("Choi et al. 2022 (P2)", "https://arxiv.org/abs/2204.00227")
DPM_SOLVER = Source("Lu et al. 2022 (DPM-Solver++)", "https://arxiv.org/abs/2211.01095")
KARRAS = Source("Karras et al. 2022", "https://arxiv.org/abs/2206.00364")
TRANSPORT = Source("Peyré and Cuturi 2019", "https://arxiv.org/abs/1803.00567")
FRECHET = Source("Dowson and Landau 1982", "https://doi.org/10.1016/0047-259X%2882%2990077-X")

ZERO, ONE, TWO = constant("0"), constant("1"), constant("2")
EQUALS, PLUS, MINUS, COMMA, SLASH = operator("="), operator("+"), operator("−", "-"), operator(","), operator("/")
BECOMES, FOLLOWS = operator("←", r"\leftarrow"), operator("∼", r"\sim")
d, e, f, h, p, r, s, t, u, v, w, x, y, z, D, L, T, P, Q, W = (identifier(letter) for letter in "defhprstuvwxyzDLTPQW")
lamda, prime = identifier("λ", r"\lambda"), operator("′", r"\prime")
alpha, beta, gamma, epsilon = (
    identifier(letter, rf"\{name}")
    for letter, name in (("α", "alpha"), ("β", "beta"), ("γ", "gamma"), ("ε", "epsilon"))
)
eta, theta, mu, sigma, covariance = (
    identifier(letter, rf"\{name}")
    for letter, name in (("η", "eta"), ("θ", "theta"), ("μ", "mu"), ("σ", "sigma"), ("Σ", "Sigma"))
)
null_label = identifier("∅", r"\varnothing")
x_0, x_t, x_s, x_0_hat = sub(x, ZERO), sub(x, t), sub(x, s), sub(hat(x), ZERO)
x_0_hat_before = sub_power(hat(x), ZERO, prime)
x_previous = sub(x, t, MINUS, ONE)
alpha_t, beta_t, sigma_t, v_t = sub(alpha, t), sub(beta, t), sub(sigma, t), sub(v, t)
beta_first, beta_last = sub(beta, ONE), sub(beta, T)
alpha_bar_t, alpha_bar_s, alpha_bar_previous = sub(bar(alpha), t), sub(bar(alpha), s), sub(bar(alpha), t, MINUS, ONE)
signal_left, signal_first, signal_last = root(alpha_bar_t), root(sub(bar(alpha), ONE)), root(sub(bar(alpha), T))
noise_t, noise_s, noise_previous = (
    row(ONE, MINUS, alpha_bar) for alpha_bar in (alpha_bar_t, alpha_bar_s, alpha_bar_previous)
)
sigma_s, w_t, snr_t = sub(sigma, s), sub(w, t), sub(text("SNR"), t)
SIGNAL_TO_NOISE = fraction(alpha_bar_t, noise_t)
i, j = identifier("i"), identifier("j")
w_i = sub(w, i)
total, total_j = (under(operator("∑", r"\sum"), index) for index in (i, j))
progress = fraction(row(t, MINUS, ONE), row(T, MINUS, ONE))
standard_normal = identifier("𝒩", r"\mathcal{N}") + parentheses(ZERO, COMMA, identifier("I", r"\mathbf{I}"))
expectation = sub(identifier("𝔼", r"\mathbb{E}"), t, COMMA, x_0, COMMA, epsilon)


def answer(symbol: Math, *condition: Math) -> Math:
    """What the network says, such as epsilon_theta(x_t, t)."""
    return sub(symbol, theta) + parentheses(x_t, COMMA, t, *condition)


def loss(target: Math, guess: Math) -> Math:
    """L = E |target - guess|^2."""
    return L + EQUALS + expectation + norm_squared(target, MINUS, guess)


IDEAL_DENOISER = Equation(
    "ideal_denoiser",
    "The ideal denoiser",
    (
        x_0_hat + EQUALS + total + w_i + sub(x, i),
        w_i + EQUALS + fraction(power(e, MINUS, sub(r, i)), row(total_j, power(e, MINUS, sub(r, j)))),
        sub(r, i) + EQUALS + fraction(norm_squared(x_t, MINUS, signal_left, sub(x, i)), row(TWO, parentheses(noise_t))),
    ),
    "Of all predictions of the clean data, the mean of the training examples has the least error, each weighted by how"
    " likely it became the noisy state. No training is needed: the sums run over all training examples.",
    KARRAS,
    "eq. 57",
)

ADDING_NOISE = Equation(
    "forward",
    "Adding noise",
    (
        x_t + EQUALS + signal_left + x_0 + PLUS + root(noise_t) + epsilon,
        epsilon + FOLLOWS + standard_normal,
        alpha_bar_t
        + EQUALS
        + under(operator("∏", r"\prod"), s, operator("≤", r"\le"), t)
        + parentheses(ONE, MINUS, sub(beta, s)),
    ),
    "Any noisy state can be had from the data in one go: the data shrink, standard normal noise grows, and the share"
    " of the signal's variance that is left is the product over all steps so far.",
    DDPM,
    "eq. 4",
)

SCHEDULES = {
    "linear": Equation(
        "linear",
        "Linear schedule",
        (beta_t + EQUALS + beta_first + PLUS + progress + parentheses(beta_last, MINUS, beta_first),),
        "The variance of the noise added per step grows evenly from the first step to the last.",
        DDPM,
        "section 4",
    ),
    "scaled_linear": Equation(
        "scaled_linear",
        "Scaled linear schedule",
        (
            root(beta_t) + EQUALS + root(beta_first) + PLUS + progress
            + parentheses(root(beta_last), MINUS, root(beta_first)),
        ),
        "The standard deviation of the noise added per step grows evenly, so that its variance starts gently.",
        LATENT,
        "as released",
    ),
    "squaredcos_cap_v2": Equation(
        "squaredcos_cap_v2",
        "Cosine schedule",
        (
            alpha_bar_t + EQUALS + fraction(row(f, parentheses(t)), row(f, parentheses(ZERO))),
            f + parentheses(t) + EQUALS + power(identifier("cos", r"\cos"), TWO)
            + parentheses(
                fraction(row(t, SLASH, T, PLUS, s), row(ONE, PLUS, s)), fraction(identifier("π", r"\pi"), TWO)
            ),
        ),
        "The share of signal falls along a cosine, slowly at both ends; *s* is a small offset.",
        IMPROVED,
        "eq. 17",
    ),
    "sigmoid": Equation(
        "sigmoid",
        "Sigmoid schedule",
        (
            beta_t + EQUALS + beta_first + PLUS + parentheses(beta_last, MINUS, beta_first)
            + identifier("sigmoid", r"\operatorname{sigmoid}") + parentheses(sub(u, t)),
        ),
        "The variance of the noise added per step rises along an S; *u* runs evenly from one flat end of it to the"
        " other.",
        GEODIFF,
        "as released",
    ),
}  # fmt: skip

TARGETS = {
    "epsilon": Equation(
        "loss_epsilon",
        "What is learnt",
        (loss(epsilon, answer(epsilon)),),
        "The network sees a noisy state and its timestep, and guesses the noise that is in it. The loss is the mean"
        " squared error of the guess.",
        DDPM,
        "eq. 14 and algorithm 1",
    ),
    "v_prediction": Equation(
        "loss_v",
        "What is learnt",
        (loss(v_t, answer(v)), v_t + EQUALS + signal_left + epsilon + MINUS + root(noise_t) + x_0),
        "The network guesses *v*, a mixture of noise and data that stays informative at every timestep: where the"
        " state is all noise it asks for the data, and the other way round.",
        VELOCITY,
        "appendix D",
    ),
    "sample": Equation(
        "loss_x0",
        "What is learnt",
        (loss(x_0, answer(hat(x))),),
        "The network guesses the clean data themselves.",
        DDPM,
        "section 3.2",
    ),
}

AVERAGE = Equation(
    "average",
    "Averaged weights",
    (bar(theta) + BECOMES + d + bar(theta) + PLUS + parentheses(ONE, MINUS, d) + theta,),
    "Samples are drawn with a running average of the weights, which evens out the last steps of training; *d* is the"
    " parameter `ema_decay`, reached after a warm-up.",
    DDPM,
    "appendix B",
)

ESTIMATES = {
    "epsilon": Equation(
        "estimate_epsilon",
        "The data that a guess implies",
        (x_0_hat + EQUALS + fraction(row(x_t, MINUS, root(noise_t), answer(epsilon)), signal_left),),
        "Take the guessed noise away, and undo the shrinking.",
        DDPM,
        "eq. 15",
    ),
    "v_prediction": Equation(
        "estimate_v",
        "The data that a guess implies",
        (x_0_hat + EQUALS + signal_left + x_t + MINUS + root(noise_t) + answer(v),),
        "A state and its *v* are data and noise turned by an angle, so they are turned back.",
        VELOCITY,
        "appendix D",
    ),
}

ZERO_TERMINAL_SNR = Equation(
    "zero_terminal_snr",
    "Ending in pure noise",
    (
        signal_left + BECOMES
        + fraction(signal_first, row(signal_first, MINUS, signal_last))
        + parentheses(signal_left, MINUS, signal_last),
    ),
    "Shifted and scaled, the share of the data that is left ends at nought, as sampling assumes when it starts from"
    " noise alone, and the first step stays as it is.",
    LIN,
    "algorithm 1",
)  # fmt: skip

LOSS_WEIGHTS = {
    "min_snr": Equation(
        "min_snr",
        "What an error weighs",
        (w_t + EQUALS + operator("min", r"\min") + parentheses(snr_t, COMMA, gamma), snr_t + EQUALS + SIGNAL_TO_NOISE),
        "The error of the implied data counts in proportion to the signal-to-noise ratio, but no more than *γ* times:"
        " the many easy, nearly clean states don't outweigh the others. Whatever the network guesses, its error is"
        " weighted so that this comes out.",
        MIN_SNR,
        "section 3.4",
    ),
    "p2": Equation(
        "p2",
        "What an error weighs",
        (
            w_t + EQUALS + fraction(ONE, power(parentheses(ONE, PLUS, snr_t), gamma)),
            snr_t + EQUALS + SIGNAL_TO_NOISE,
        ),
        "The error of the guessed noise counts less where little noise is left, so that the coarse content, which is"
        " decided at higher noise, is learnt first. Whatever the network guesses, its error is weighted so that this"
        " comes out.",
        P2,
        "eq. 8",
    ),
}  # fmt: skip

STEPS = (  # by the names of the samplers' functions (samplers.py)
    Equation(
        "ddpm_step",
        "A step of DDPM",
        (
            x_previous + EQUALS + fraction(row(root(alpha_bar_previous), beta_t), noise_t) + x_0_hat + PLUS
            + fraction(row(root(alpha_t), parentheses(noise_previous)), noise_t) + x_t + PLUS + sigma_t + z,
            sub_power(sigma, t, TWO) + EQUALS + fraction(noise_previous, noise_t) + beta_t,
        ),
        "The state one step earlier is a weighted mean of the implied data and the present state, plus a little"
        " fresh noise *z*; the last step adds none. Where timesteps are left out, *t* − 1 is the next one visited."
        " With `variance_type: fixed_large` the variance of that noise is *β* itself.",
        DDPM,
        "eq. 7 and algorithm 2",
    ),
    Equation(
        "ddim_step",
        "A step of DDIM",
        (
            x_s + EQUALS + root(alpha_bar_s) + x_0_hat + PLUS + root(noise_s, MINUS, sub_power(sigma, t, TWO))
            + answer(epsilon) + PLUS + sigma_t + z,
            sigma_t + EQUALS + eta
            + root(fraction(noise_s, noise_t), parentheses(ONE, MINUS, fraction(alpha_bar_t, alpha_bar_s))),
        ),
        "From the implied data straight to an earlier timestep *s*, however far: the guessed noise is put back, only"
        " less of it. Where *η* is nought nothing is drawn, and the same start always gives the same sample.",
        DDIM,
        "eq. 12 and 16",
    ),
    Equation(
        "dpm_solver_step",
        "A step of DPM-Solver++",
        (
            x_s + EQUALS + root(fraction(noise_s, noise_t)) + x_t + MINUS + root(alpha_bar_s)
            + parentheses(power(e, MINUS, h), MINUS, ONE) + D,
            h + EQUALS + sub(lamda, s) + MINUS + sub(lamda, t),
            sub(lamda, t) + EQUALS + operator("log", r"\log") + root(fraction(alpha_bar_t, noise_t)),
            D + EQUALS + parentheses(ONE, PLUS, fraction(ONE, row(TWO, r))) + x_0_hat
            + MINUS + fraction(ONE, row(TWO, r)) + x_0_hat_before,
        ),
        "Only the implied data have to be guessed between timesteps; all else is solved exactly. *D* continues the line"
        " from the data implied at the timestep before (primed) to those implied now; *r* is the length of that step in"
        " *λ*, measured in steps *h*. The first and the last step take the implied data as they are.",
        DPM_SOLVER,
        "algorithm 2",
    ),
    Equation(
        "heun_step",
        "A step of Heun's method",
        (
            x_s + EQUALS + x_t + PLUS + parentheses(sigma_s, MINUS, sigma_t)
            + fraction(row(sub(d, t), PLUS, sub(d, s)), TWO),
            sub(d, t) + EQUALS + fraction(row(x_t, MINUS, x_0_hat), sigma_t),
            sigma_t + EQUALS + root(fraction(noise_t, alpha_bar_t)),
        ),
        "Here states are not shrunk: *x* is data plus noise of deviation *σ*. A first step along the slope *d* shows"
        " the slope at its end; the step that counts goes along the mean of the two, and needs two evaluations of the"
        " network. The last one, to *σ* = 0, needs one.",
        KARRAS,
        "algorithm 1",
    ),
)  # fmt: skip

LABEL_DROPOUT = Equation(
    "label_dropout",
    "Learning with and without a label",
    (answer(epsilon, COMMA, y), y + BECOMES + null_label + text("with probability") + p),
    "The network is told the class *y*. Now and then it is told nothing instead (the null label ∅), so that one network"
    " learns both answers; *p* is the parameter `label_dropout`.",
    GUIDANCE,
    "algorithm 1",
)

CLASSIFIER_FREE_GUIDANCE = Equation(
    "guidance",
    "Classifier-free guidance",
    (
        sub(hat(epsilon), theta) + EQUALS + answer(epsilon, COMMA, null_label) + PLUS + w
        + parentheses(answer(epsilon, COMMA, y), MINUS, answer(epsilon, COMMA, null_label)),
    ),
    "The difference that the label makes is enlarged by the guidance scale *w* (one more than the paper's). Each"
    " step then takes two evaluations of the network.",
    GUIDANCE,
    "eq. 6",
)  # fmt: skip

MEASURES = {
    "wasserstein_2": Equation(
        "wasserstein_2",
        "2-Wasserstein distance",
        (
            sub(W, TWO) + parentheses(P, COMMA, Q) + EQUALS
            + power(
                parentheses(
                    under(operator("min", r"\min"), gamma), sub(identifier("𝔼", r"\mathbb{E}"), gamma),
                    norm_squared(x, MINUS, y),
                ),
                ONE, SLASH, TWO,
            ),
        ),
        "Of all plans *γ* that pair the points *x* of one set with the points *y* of the other, the cheapest counts.",
        TRANSPORT,
        "section 2.4",
    ),
    "frechet_distance": Equation(
        "frechet_distance",
        "Fréchet distance",
        (
            norm_squared(sub(mu, P), MINUS, sub(mu, Q)) + PLUS + identifier("tr", r"\operatorname{tr}")
            + parentheses(
                sub(covariance, P), PLUS, sub(covariance, Q), MINUS, TWO,
                power(parentheses(sub(covariance, P), sub(covariance, Q)), ONE, SLASH, TWO),
            ),
        ),
        "Between the features of two sets of images, each summed up by its mean *μ* and its covariance *Σ*.",
        FRECHET,
        "eq. 16",
    ),
}  # fmt: skip


def equations_of(model: RungParameters, sampling: Sampling, metric_names: Collection[str]) -> list[Equation]:
    """The equations that a rung uses, in the order in which it does; what has no equation here is passed over."""
    prediction_type = model.schedule.prediction_type
    steps = {MODULES[name].step_function for name in (sampling.sampler, model.schedulers.comparison)}
    candidates = (
        ADDING_NOISE,
        SCHEDULES.get(model.schedule.name),
        ZERO_TERMINAL_SNR if model.schedule.rescale_betas_zero_snr else None,
        TARGETS.get(prediction_type),
        LOSS_WEIGHTS.get(model.training.loss_weight.name) if model.training.loss_weight else None,
        AVERAGE if model.training.ema_decay else None,
        LABEL_DROPOUT if model.training.label_dropout else None,
        ESTIMATES.get(prediction_type),
        CLASSIFIER_FREE_GUIDANCE if sampling.guidance_scale != 1 else None,
        *(equation for equation in STEPS if equation.key in steps),
        *(equation for name, equation in MEASURES.items() if name in metric_names),
    )
    return [equation for equation in candidates if equation is not None]


EQUATIONS_BY_KEY = {
    equation.key: equation
    for equation in (
        IDEAL_DENOISER,
        ADDING_NOISE,
        *SCHEDULES.values(),
        ZERO_TERMINAL_SNR,
        *TARGETS.values(),
        *LOSS_WEIGHTS.values(),
        AVERAGE,
        *ESTIMATES.values(),
        *STEPS,
        LABEL_DROPOUT,
        CLASSIFIER_FREE_GUIDANCE,
        *MEASURES.values(),
    )
}
