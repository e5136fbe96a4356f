"""Rung 0: sample the ideal denoiser of a training set in the place of a rung's network, measure it and draw it."""

import itertools
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.device import configure
from diffusion_ladder.evaluation.bounds import by_seed
from diffusion_ladder.evaluation.classifier import load_classifier
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.gaussian_chain import end_errors, gaussian_chains
from diffusion_ladder.evaluation.images import Trial, evaluate_images
from diffusion_ladder.evaluation.memorisation import evaluate_memorisation
from diffusion_ladder.evaluation.points import evaluate_points
from diffusion_ladder.figures import ideal_denoiser as figures
from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.exhibit import Exhibit
from diffusion_ladder.figures.ways import first_of_each_class
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import (
    read_json,
    read_metadata,
    read_tensors,
    write_bytes,
    write_json,
    write_tensors,
)
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.networks.ideal_denoiser import IdealDenoiser
from diffusion_ladder.params.classifier import Classifier
from diffusion_ladder.params.evaluation import ImageEvaluation, PointEvaluation
from diffusion_ladder.params.ideal_denoiser import IdealDenoiser as Settings
from diffusion_ladder.params.network import Network
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung, parameter_count
from diffusion_ladder.sampling.loop import Drawing, Samples, draw_samples

Tensors = dict[str, Tensor]


def ideal_rung(stage: Stage, known: Tensors, metadata: dict[str, Any], settings: Settings) -> Rung:
    """The rung with the ideal denoiser of the examples that it knows in the place of its network."""
    key = f"rungs.{stage.key}"
    schedule, normalisation = stage.parameter(f"{key}.schedule", Schedule), Normalisation.from_metadata(metadata)
    x_0 = normalise(known["train"], normalisation)
    network = IdealDenoiser(x_0, known["train_labels"], forward_process(schedule), schedule.prediction_type)
    return Rung(
        model=stage.key,
        dataset=metadata["dataset"],
        network=network.to(stage.device),
        settings=cast(Network, settings),  # which only saving reads
        schedule=schedule,
        sample_shape=tuple(x_0.shape[1:]),
        num_classes=len(metadata["class_names"]) if stage.parameter(f"{key}.conditional", bool) else 0,
        null_label=None,
        normalisation=normalisation,
    )


def draw(stage: Stage, rung: Rung, settings: Settings) -> Samples:
    """Samples from the same noise as those of the rung's own network."""
    own = stage.section("sampling", Sampling)
    changes = {"spacing": settings.spacing, "guidance_scale": 1.0, "batch_size": own.seeds * settings.count}
    sampling = own.model_copy(update=changes | {"trajectory_count": min(own.trajectory_count, settings.count)})
    seed = stage.parameter("seed", int)
    drawing = Drawing(rung, settings.sampler, sampling, settings.steps, settings.count, seed, own.seeds)
    with tqdm(total=drawing.total * settings.steps, desc=stage.label, unit=" steps", unit_scale=True) as progress:
        return draw_samples(drawing, progress.update)


def measure(stage: Stage, drawn: Samples, data: Tensors, known: Tensors, metadata: dict[str, Any]) -> Findings:
    """What `evaluate` measures of a rung, without what it trains; copies are sought among the examples known."""
    dataset, count, seed = metadata["dataset"], len(drawn.samples), stage.parameter("seed", int)
    samples = {name: getattr(drawn, name) for name in ("samples", "labels", "sampling_seed")}
    groups = by_seed(samples["samples"], samples["sampling_seed"])
    smaller: dict[str, Any] = {"sample_count": count // len(groups), "smaller_counts": []}

    def generator_of(*purpose: str | int) -> torch.Generator:
        return generator(seed, "evaluate", dataset, *purpose)  # the real subsets that the rung meets

    settings: PointEvaluation | ImageEvaluation
    normalisation = Normalisation.from_metadata(metadata)
    if normalisation.bytes:
        smaller |= {"two_sample": None, "accuracy_score": None}
        settings = stage.section("evaluation", ImageEvaluation).model_copy(update=smaller)
        classifier, card = load_classifier(f"data/judges/{dataset}/classifier")
        trained = Classifier.model_validate(card["settings"])
        judge = classifier.to(stage.device), trained, card["class_names"]
        findings = evaluate_images(Trial(samples, data, normalisation, *judge, settings, generator_of))
    else:
        settings = stage.section("evaluation", PointEvaluation).model_copy(update=smaller)
        card = read_json(f"data/judges/{dataset}/card.json")
        findings = evaluate_points(groups, data, normalisation, card, settings, generator_of)
    copies = data | {"train": known["train"]}
    findings |= evaluate_memorisation(samples, copies, settings.memorisation, settings.sample_count, generator_of)
    facts = {"sample_count": settings.sample_count, "sampling_seeds": len(groups), "nfe": drawn.nfe}
    return findings | Findings(facts | {"known_examples": len(known["train"])})


def write_figures(folder: str, exhibits: Iterable[Exhibit]) -> None:
    """Write the figures, then captions.json, which lists them."""
    captions = []
    with house_style():
        for exhibit in exhibits:
            write_bytes(f"{folder}/{exhibit.file}", exhibit.content)
            captions.append(exhibit.entry())
    write_json(f"{folder}/captions.json", captions)


def main(stage: Stage) -> None:
    """Write the samples, the numbers and the figures."""
    settings = stage.parameter(f"rungs.{stage.key}.ideal_denoiser", Settings)
    path = f"data/processed/{stage.parameter(f'rungs.{stage.key}.dataset', str)}.safetensors"
    data, metadata = read_tensors(path), read_metadata(path)
    chosen = first_of_each_class(data["train_labels"], settings.examples)
    known = {name: data[name][chosen] for name in ("train", "train_labels")}
    rung = ideal_rung(stage, known, metadata, settings)
    print(f"{stage.label}: {parameter_count(rung.network)} parameters, {len(chosen):,} training examples")
    drawn = draw(stage, rung, settings)
    findings = measure(stage, drawn, data, known, metadata)
    tensors = {name: getattr(drawn, name) for name in ("samples", "labels", "sampling_seed")}
    write_tensors(f"data/ideal/{stage.key}.safetensors", tensors, {"model": stage.key, "nfe": drawn.nfe})
    way = {name: getattr(drawn, name) for name in ("states", "predicted", "timesteps", "final")}
    own = drawn.samples[drawn.sampling_seed == 0]
    shown = figures.Ideal(known["train"], own, data["test"], **way, normalisation=rung.normalisation)
    exhibits = [figures.exhibits(shown, findings)]
    if settings.gaussian:
        chains = gaussian_chains(forward_process(rung.schedule), settings.gaussian.mean, settings.gaussian.std)
        findings |= Findings(end_errors(chains))
        exhibits.append(figures.gaussian_exhibits(chains))
    write_json(f"reports/metrics/ideal/{stage.key}.json", findings.numbers)
    write_figures(f"reports/figures/ideal/{stage.key}", itertools.chain(*exhibits))


if __name__ == "__main__":
    run_stage(main, configure)
