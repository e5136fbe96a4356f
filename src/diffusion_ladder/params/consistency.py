"""What the schema of one section can't see: whether the parts of params.yaml fit each other.

Only the stage check_params and the presets import this, so that a new check makes nothing run again but itself.
"""

from collections.abc import Iterable

from diffusion_ladder.diffusion.terminal_snr import NO_SIGNAL
from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.params.datasets import Digits, Points, Portraits, given_paths
from diffusion_ladder.params.evaluation import PointEvaluation
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.samplers import MODULES, ROWS, SAMPLERS
from diffusion_ladder.params.whole import Parameters

DIGIT_SIZE = 28  # side of every image of the MNIST family, in pixels
EMNIST_CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}  # by split
AnyDataset = Points | Digits | Portraits


def check_consistency(parameters: Parameters) -> None:
    """Refuse what would fail, or be judged wrongly, only after hours of training.

    Raises:
        ParameterError: one line that names the key, what was found and what would fit.
    """
    for name, dataset in parameters.datasets.items():
        if isinstance(dataset, Portraits):
            check_local_source(name, dataset)
    for name in parameters.classifiers:
        if name not in parameters.datasets:
            raise ParameterError(f"classifiers.{name}: no data set is called {name}")
        if isinstance(parameters.datasets[name], Points):
            raise ParameterError(f"classifiers.{name}: {name} are points, which need no classifier")
    for name, rung in parameters.rungs.items():
        if rung.dataset not in parameters.datasets:
            known = ", ".join(parameters.datasets)
            raise ParameterError(f"rungs.{name}.dataset: no data set is called {rung.dataset}, but {known}")
        check_rung(f"rungs.{name}", rung, parameters.datasets[rung.dataset], [*parameters.classifiers])


def paths_of_users(parameters: Parameters) -> dict[str, list[str]]:
    """The files, folders and patterns that are the user's own, by the keys that name them."""
    found: dict[str, list[str]] = {}
    for name, dataset in parameters.datasets.items():
        for source, settings in dataset.sources:
            given = given_paths(settings) if settings else {}
            found |= {f"datasets.{name}.sources.{source}.{key}": paths for key, paths in given.items()}
    for name, rung in parameters.rungs.items():
        if (inception := getattr(rung.evaluation, "inception", None)) is not None:
            found[f"rungs.{name}.evaluation.inception.path"] = [inception.path]
    return found


def check_rung(key: str, rung: RungParameters, dataset: AnyDataset, classifiers: list[str]) -> None:
    """All checks of one rung."""
    check_kind(key, rung, dataset, classifiers)
    check_sizes(key, rung, dataset)
    check_sampling(key, rung, dataset)
    check_sweep(key, rung)
    check_ideal_denoiser(key, rung, dataset)
    if len({*samplers_of(rung).values()}) == 1:
        both = rung.sampling.sampler
        raise ParameterError(f"{key}: sampling.sampler and schedulers.comparison are both {both}: choose two samplers")


def check_sampling(key: str, rung: RungParameters, dataset: AnyDataset) -> None:
    """All checks of how a rung's samples are drawn, which hold for other commands than the pipeline's, too."""
    check_counts(key, rung)
    check_classes(key, rung, dataset)
    check_schedule(key, rung)
    check_options(key, rung, dataset)
    check_samplers(key, rung)


def check_ideal_denoiser(key: str, rung: RungParameters, dataset: AnyDataset) -> None:
    """The ideal denoiser is asked at the schedule's timesteps, and for every class equally often."""
    ideal, classes = rung.ideal_denoiser, class_count(dataset)
    if ideal is None:
        return
    if ideal.steps > rung.schedule.T:
        raise ParameterError(f"{key}.ideal_denoiser.steps: {ideal.steps} is more than T = {rung.schedule.T}")
    if rung.conditional and ideal.count % classes:
        raise ParameterError(f"{key}.ideal_denoiser.count: {ideal.count} is no multiple of {classes} classes")
    if MODULES[ideal.sampler].visits_fractions:
        raise ParameterError(
            f"{key}.ideal_denoiser.sampler: {ideal.sampler} visits fractions of timesteps; take another"
        )


def check_kind(key: str, rung: RungParameters, dataset: AnyDataset, classifiers: list[str]) -> None:
    """Points and images are learnt, measured and judged each in their way."""
    points, kind = isinstance(dataset, Points), dataset.kind
    if points != (rung.network.name == "mlp"):
        raise ParameterError(f"{key}.network.name: {rung.network.name} can't learn {kind}")
    if points != isinstance(rung.evaluation, PointEvaluation):
        fitting = "projections" if points else "neighbours"
        raise ParameterError(f"{key}.evaluation: {rung.dataset} are {kind}, which need {fitting} and no key of others")
    if rung.score and not points:
        raise ParameterError(f"{key}.score: {rung.dataset} are {kind}; an exact score can be drawn for points only")
    if not points and rung.dataset not in classifiers:
        raise ParameterError(f"classifiers: none is called {rung.dataset}, which {key} needs as its judge")


def check_local_source(name: str, dataset: Portraits) -> None:
    """Files of the user's must be named."""
    source = dataset.source
    if source in ("parquet", "imagefolder") and getattr(dataset.sources, source).path is None:
        raise ParameterError(f"datasets.{name}.sources.{source}.path: name what the source {source} is to read")


def check_sizes(key: str, rung: RungParameters, dataset: AnyDataset) -> None:
    """The U-Nets halve the size at every level, and what is halved must be even for the way up to meet it."""
    if rung.network.name == "mlp":
        return
    side = dataset.preprocess.image_size if isinstance(dataset, Portraits) else DIGIT_SIZE
    factor = rung.network.patch_size * 2 ** (len(rung.network.block_out_channels) - 1)
    if side % factor:
        raise ParameterError(
            f"{key}.network: patch_size and block_out_channels divide the size by {factor}, "
            f"which does not divide the {side} pixels of {rung.dataset}"
        )


def check_counts(key: str, rung: RungParameters) -> None:
    """No more steps than T, and no more samples than are drawn."""
    T, sampling, sweep = rung.schedule.T, rung.sampling, rung.sweep
    steps = {
        "sampling.steps": sampling.steps,
        "sampling.comparison_steps": sampling.comparison_steps,
        "previews.steps": rung.previews.steps,
        "sweep.evaluations": max(sweep.evaluations),
        "sweep.guidance.steps": sweep.guidance.steps if sweep.guidance else 1,
    }
    for name, count in steps.items():
        if count != "all" and count > T:
            raise ParameterError(f"{key}.{name}: {count} is more than T = {T} of its schedule")
    if sampling.trajectory_count > min(sampling.count, sampling.comparison_count):
        raise ParameterError(f"{key}.sampling.trajectory_count: more than the samples that are drawn")
    if (compared := rung.evaluation.sample_count) > sampling.count:
        raise ParameterError(
            f"{key}.evaluation.sample_count: {compared} is more than sampling.count = {sampling.count}"
        )


def class_count(dataset: AnyDataset) -> int:
    """The classes of a data set."""
    if isinstance(dataset, Portraits):
        return len(dataset.preprocess.class_names)
    if isinstance(dataset, Points):
        return 2
    family = dataset.sources.torchvision if dataset.source == "torchvision" else None
    return EMNIST_CLASSES[str(family.split)] if family and family.name == "EMNIST" else 10


def check_classes(key: str, rung: RungParameters, dataset: AnyDataset) -> None:
    """A conditional rung needs counts that its classes share evenly; guidance needs a null label, and that classes."""
    if rung.training.label_dropout and not rung.conditional:
        raise ParameterError(f"{key}.training.label_dropout: there are no labels to drop without `conditional: true`")
    classes = class_count(dataset)
    counts = {f"sampling.{name}": getattr(rung.sampling, name) for name in SAMPLE_COUNTS}
    counts |= {"sweep.count": rung.sweep.count, "previews.count": rung.previews.count}
    for name, count in counts.items() if rung.conditional else ():
        if count % classes:
            raise ParameterError(f"{key}.{name}: {count} is no multiple of {classes} classes")
    weights = rung.training.class_weights
    if weights is not None and len(weights) != classes:
        raise ParameterError(
            f"{key}.training.class_weights: {len(weights)} weights for {rung.dataset}, which has {classes} classes"
        )
    for name, used in (
        ("sampling.guidance_scale", rung.sampling.guidance_scale != 1),
        ("sweep.guidance", rung.sweep.guidance is not None),
    ):
        if used and not rung.training.label_dropout:
            raise ParameterError(f"{key}.{name}: needs a null label (training.label_dropout above 0)")
    if rung.score and rung.conditional and not rung.training.label_dropout:
        raise ParameterError(
            f"{key}.score: the score of all classes together needs a null label (training.label_dropout above 0)"
        )


SAMPLE_COUNTS = ("count", "comparison_count", "trajectory_count")


def check_schedule(key: str, rung: RungParameters) -> None:
    """Zero terminal SNR leaves nothing that an epsilon could tell, and a sampler that counts in sigma no start."""
    if not rung.schedule.rescale_betas_zero_snr:
        return
    if rung.schedule.prediction_type == "epsilon":
        raise ParameterError(f"{key}.schedule: {NO_SIGNAL}")
    for use, module in samplers_of(rung).items():
        if not MODULES[module].rescales:
            raise ParameterError(
                f"{key}.{use}: {module} starts at sigma = 1 / sqrt(SNR), which is infinite with "
                f"rescale_betas_zero_snr; choose {one_of(row.name for row in ROWS if row.rescales)}"
            )


def samplers_of(rung: RungParameters) -> dict[str, str]:
    """The two samplers of a rung, by the keys that name them."""
    return {"sampling.sampler": rung.sampling.sampler, "schedulers.comparison": rung.schedulers.comparison}


def check_options(key: str, rung: RungParameters, dataset: AnyDataset) -> None:
    """Images lie in [-1, 1] and can be mirrored; points reach beyond, and they alone can be paired."""
    points, training = isinstance(dataset, Points), rung.training
    for name in ("clip_sample", "thresholding") if points else ():
        if getattr(rung.sampling, name):
            raise ParameterError(f"{key}.sampling.{name}: would cut off {rung.dataset}, points outside [-1, 1]")
    if training.flip and points:
        raise ParameterError(f"{key}.training.flip: {rung.dataset} are points, which have no mirror image")
    if training.pairing is None:
        return
    if not points:
        raise ParameterError(f"{key}.training.pairing: optimal_transport is for points, which {rung.dataset} are not")
    eta = rung.sampling.eta
    for use, module in samplers_of(rung).items():
        if MODULES[module].adds_noise(eta):
            others = one_of(row.name + " with eta 0" * row.stochastic for row in ROWS if not row.adds_noise(eta=0))
            raise ParameterError(
                f"{key}.{use}: {module} adds noise (eta = {eta:g}), which needs noise and data "
                f"independent in training; with pairing: optimal_transport take {others}"
            )


def check_samplers(key: str, rung: RungParameters) -> None:
    """What a sampler can't do is refused before the training that it would come after."""
    sampling, (first, second), T = rung.sampling, samplers_of(rung).values(), rung.schedule.T
    for name, module in {"steps": first, "comparison_steps": second}.items():
        if sampling.thresholding and "thresholding" not in MODULES[module].options:
            raise ParameterError(f"{key}.sampling.thresholding: {module} knows clip_sample only")
        most, steps = MODULES[module].most_steps(T, sampling.spacing), getattr(sampling, name)
        if (T if steps == "all" else steps) > most:
            raise ParameterError(
                f"{key}.sampling.{name}: with {sampling.spacing} spacing {module} leaves the last timestep to the "
                f"data; take at most {most} steps, or trailing spacing"
            )


def check_sweep(key: str, rung: RungParameters) -> None:
    """The sweep's samplers have the same limits as those that are used."""
    sampling, sweep = rung.sampling, rung.sweep
    for sampler in map(SAMPLERS.__getitem__, sweep.samplers):
        why = ""
        if rung.schedule.rescale_betas_zero_snr and not sampler.rescales:
            why = "an infinite sigma at zero SNR"
        if sampling.thresholding and "thresholding" not in sampler.options:
            why = "thresholding, which it doesn't know"
        if why:
            raise ParameterError(f"{key}.sweep.samplers: {sampler.name} can't be compared with {why}; leave it out")
        most = sampler.most_steps(rung.schedule.T, sampling.spacing)
        if sampler.steps_within(max(sweep.evaluations)) > most:
            raise ParameterError(
                f"{key}.sweep.evaluations: with {sampling.spacing} spacing {sampler.name} takes at most {most} steps"
            )


def one_of(names: Iterable[str]) -> str:
    """Names to choose from: a, b or c."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
