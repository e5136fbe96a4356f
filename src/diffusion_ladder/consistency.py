"""What the schema of one section can't see: whether the parts of params.yaml fit each other.

Only the stage check_params imports this, so that a new check makes nothing run again but itself.
"""

from collections.abc import Iterable

from diffusion_ladder.diffusion.terminal_snr import NO_SIGNAL
from diffusion_ladder.errors import ParameterError
from diffusion_ladder.params import Model, Parameters, Portraits, Sampling, Scores, Sweep
from diffusion_ladder.samplers import MODULES, ROWS, SAMPLERS

DIGIT_SIZE = 28  # side of every image of the MNIST family, in pixels


def check_consistency(parameters: Parameters) -> None:
    """Refuse a rung that would fail, or be judged wrongly, only after it has been trained.

    Raises:
        ParameterError: one line that names the key, what was found and what would fit.
    """
    for name, dataset in parameters.datasets.items():
        if isinstance(dataset, Portraits):
            check_local_source(name, dataset)
    for name, classifier in parameters.classifiers.items():
        if parameters.datasets[classifier.dataset].kind == "points":
            raise ParameterError(f"classifiers.{name}.dataset: {classifier.dataset} are points, which have no classes")
    for name, scores in parameters.scores.items():
        check_scores(parameters, name, scores)
    for name, model in parameters.models.items():
        check_judge(parameters, name, model)
        check_sizes(parameters, name, model)
        check_schedule(name, model)
        check_range(parameters, name, model)
        check_options(parameters, name, model)
        check_samplers(name, model, parameters.sampling[name])
        check_sweep(name, model, parameters.sampling[name], parameters.sweep[name])
        check_evaluation(parameters, name, model)


def check_scores(parameters: Parameters, name: str, scores: Scores) -> None:
    """Only a rung whose data are points has an exact score that can be drawn."""
    points = [key for key, model in parameters.models.items() if parameters.datasets[model.dataset].kind == "points"]
    if name not in points:
        raise ParameterError(f"scores.{name}: no model of points is called so, but {' and '.join(points)} are")
    if scores.dataset != parameters.models[name].dataset:
        trained_on = parameters.models[name].dataset
        raise ParameterError(f"scores.{name}.dataset: {scores.dataset}, but models.{name}.dataset is {trained_on}")


def check_evaluation(parameters: Parameters, name: str, model: Model) -> None:
    """Points are measured as points, and no more samples of a seed than there are."""
    evaluation, drawn = parameters.evaluation[name], parameters.sampling[name].count
    fitting = "points" if parameters.datasets[model.dataset].kind == "points" else "images"
    if evaluation.kind != fitting:
        raise ParameterError(f"evaluation.{name}.kind: {evaluation.kind}, but {model.dataset} are {fitting}")
    if evaluation.sample_count > drawn:
        compared = evaluation.sample_count
        raise ParameterError(f"evaluation.{name}.sample_count: {compared} is more than sampling.{name}.count = {drawn}")


def check_local_source(name: str, dataset: Portraits) -> None:
    """Files of the user's must be named."""
    source = dataset.source
    if source in ("parquet", "imagefolder") and getattr(dataset.sources, source).path is None:
        raise ParameterError(f"datasets.{name}.sources.{source}.path: name what the source {source} is to read")


def check_judge(parameters: Parameters, name: str, model: Model) -> None:
    """Points are judged by the curve of their own data set, images by a classifier of theirs."""
    if parameters.datasets[model.dataset].kind == "points":
        fitting = [f"data/raw/{model.dataset}"]
    else:
        judges = parameters.classifiers.items()
        fitting = [f"models/classifiers/{key}" for key, judge in judges if judge.dataset == model.dataset]
    if model.judge not in fitting:
        known = " or ".join(fitting) or "a new entry of classifiers"
        raise ParameterError(f"models.{name}.judge: {model.judge} can't judge {model.dataset}, but {known} can")


def check_sizes(parameters: Parameters, name: str, model: Model) -> None:
    """The U-Nets halve the size at every level, and what is halved must be even for the way up to meet it."""
    if model.network.name == "mlp":
        return
    dataset = parameters.datasets[model.dataset]
    side = dataset.preprocess.image_size if isinstance(dataset, Portraits) else DIGIT_SIZE
    factor = model.network.patch_size * 2 ** (len(model.network.block_out_channels) - 1)
    if side % factor:
        raise ParameterError(
            f"models.{name}.network: patch_size and block_out_channels divide the size by {factor}, "
            f"which does not divide the {side} pixels of {model.dataset}"
        )


def check_schedule(name: str, model: Model) -> None:
    """Zero terminal SNR leaves nothing that an epsilon could tell, and a sampler that counts in sigma no start."""
    if not model.schedule.rescale_betas_zero_snr:
        return
    if model.schedule.prediction_type == "epsilon":
        raise ParameterError(f"models.{name}.schedule: {NO_SIGNAL}")
    for use in ("sampling", "comparison"):
        sampler = MODULES[getattr(model.schedulers, use)]
        if not sampler.rescales:
            raise ParameterError(
                f"models.{name}.schedulers.{use}: {sampler.name} starts at sigma = 1 / sqrt(SNR), which is infinite "
                f"with rescale_betas_zero_snr; choose {one_of(row.name for row in ROWS if row.rescales)}"
            )


def check_range(parameters: Parameters, name: str, model: Model) -> None:
    """Images lie in [-1, 1], where x_0 may be kept; standardised points reach beyond."""
    sampling = parameters.sampling[name]
    for key in ("clip_sample", "thresholding"):
        if parameters.datasets[model.dataset].kind == "points" and getattr(sampling, key):
            raise ParameterError(f"sampling.{name}.{key}: true would cut off {model.dataset}, points outside [-1, 1]")


def check_options(parameters: Parameters, name: str, model: Model) -> None:
    """Images alone can be mirrored, and points alone be paired; what is then learnt suits samplers without noise."""
    points, key = parameters.datasets[model.dataset].kind == "points", f"models.{name}.training"
    if model.training.flip and points:
        raise ParameterError(f"{key}.flip: {model.dataset} are points, which have no mirror image")
    if model.training.pairing == "independent":
        return
    if not points:
        raise ParameterError(f"{key}.pairing: optimal_transport is for points, which {model.dataset} are not")
    for use in ("sampling", "comparison"):
        sampler, eta = getattr(model.schedulers, use), parameters.sampling[name].eta
        if MODULES[sampler].adds_noise(eta):
            others = one_of(row.name + " with eta 0" * row.stochastic for row in ROWS if not row.adds_noise(eta=0))
            raise ParameterError(
                f"models.{name}.schedulers.{use}: {sampler} adds noise (eta = {eta:g}), which needs noise and data "
                f"independent in training; with pairing: optimal_transport take {others}"
            )


def check_samplers(name: str, model: Model, sampling: Sampling) -> None:
    """What a sampler can't do is refused before the training that it would come after."""
    for use, steps in (("sampling", sampling.steps), ("comparison", sampling.comparison_steps)):
        sampler = getattr(model.schedulers, use)
        if sampling.thresholding and "thresholding" not in MODULES[sampler].options:
            raise ParameterError(f"sampling.{name}.thresholding: {sampler} knows clip_sample only")
        T, most = model.schedule.T, MODULES[sampler].most_steps(model.schedule.T, sampling.spacing)
        if (T if steps == "all" else steps) > most:
            key = "steps" if use == "sampling" else "comparison_steps"
            raise ParameterError(
                f"sampling.{name}.{key}: with {sampling.spacing} spacing {sampler} leaves the last timestep to the "
                f"data; take at most {most} steps, or trailing spacing"
            )


def check_sweep(name: str, model: Model, sampling: Sampling, sweep: Sweep) -> None:
    """The sweep's samplers have the same limits as those that are used."""
    for sampler in map(SAMPLERS.__getitem__, sweep.samplers):
        why = ""
        if model.schedule.rescale_betas_zero_snr and not sampler.rescales:
            why = "an infinite sigma at zero SNR"
        if sampling.thresholding and "thresholding" not in sampler.options:
            why = "thresholding, which it doesn't know"
        if why:
            raise ParameterError(f"sweep.{name}.samplers: {sampler.name} can't be compared with {why}; leave it out")
        most = sampler.most_steps(model.schedule.T, sampling.spacing)
        if sampler.steps_within(max(sweep.evaluations)) > most:
            raise ParameterError(
                f"sweep.{name}.evaluations: with {sampling.spacing} spacing {sampler.name} takes at most {most} steps"
            )


def one_of(names: Iterable[str]) -> str:
    """Names to choose from: a, b or c."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
