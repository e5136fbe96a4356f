"""What the schema of one section can't see: whether the parts of params.yaml fit each other.

Only the stage check_params imports this, so that a new check makes nothing run again but itself.
"""

from diffusion_ladder.errors import ParameterError
from diffusion_ladder.params import Model, Parameters, Portraits

DIGIT_SIZE = 28  # side of every image of the MNIST family, in pixels


def check_consistency(parameters: Parameters) -> None:
    """Refuse a rung that would fail, or be judged wrongly, only after it has been trained.

    Raises:
        ParameterError: one line that names the key, what was found and what would fit.
    """
    for name, classifier in parameters.classifiers.items():
        if parameters.datasets[classifier.dataset].kind == "points":
            raise ParameterError(f"classifiers.{name}.dataset: {classifier.dataset} are points, which have no classes")
    for name, model in parameters.models.items():
        check_judge(parameters, name, model)
        check_sizes(parameters, name, model)
        drawn, compared = parameters.sampling[name].count, parameters.evaluation[name].sample_count
        if compared > drawn:
            raise ParameterError(
                f"evaluation.{name}.sample_count: {compared} is more than sampling.{name}.count = {drawn}"
            )


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
