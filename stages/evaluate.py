"""Measure one rung's samples against held-out data, with floor and ceiling."""

from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.device import configure
from diffusion_ladder.evaluation.bounds import by_seed
from diffusion_ladder.evaluation.classifier import load_classifier, parameter_count
from diffusion_ladder.evaluation.cost import evaluate_images_cost, evaluate_points_cost
from diffusion_ladder.evaluation.findings import Findings, write_findings
from diffusion_ladder.evaluation.images import Trial, evaluate_images
from diffusion_ladder.evaluation.inception import load_inception
from diffusion_ladder.evaluation.label_free import random_convolutions, whitened
from diffusion_ladder.evaluation.memorisation import evaluate_memorisation
from diffusion_ladder.evaluation.points import evaluate_point_labels, evaluate_points
from diffusion_ladder.foundation.artifacts import read_json, read_metadata, read_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.classifier import Classifier
from diffusion_ladder.params.evaluation import ImageEvaluation, PointEvaluation
from diffusion_ladder.randomness import generator

Tensors = dict[str, Tensor]


def check_sizes(stage: Stage, sample_count: int, available: dict[str, Tensor]) -> None:
    """Refuse a comparison of more samples than there are."""
    for what, values in available.items():
        if len(values) < sample_count:
            raise UserError(
                f"rungs.{stage.key}.evaluation.sample_count: {sample_count} is more than the {len(values)} {what};"
                " lower it"
            )


def judge_images(stage: Stage, samples: Tensors, data: Tensors, settings: ImageEvaluation, **options: Any) -> Findings:
    """The findings about an image rung, and which classifier found them."""
    classifier, card = load_classifier(f"data/judges/{options.pop('dataset')}/classifier")
    classifier = classifier.to(stage.device)
    print(f"{stage.label}: judged by a classifier of {parameter_count(classifier):,} parameters")
    facts = {
        "extractor": f"{card['dataset']} classifier",
        "extractor_sha256": card["weights_sha256"],
        "extractor_accuracy": card["accuracy"],
    }
    measuring: dict[str, Any] = {
        "training": Classifier.model_validate(card["settings"]),
        "class_names": card["class_names"],
    }
    if settings.inception is not None:
        facts["inception_sha256"] = settings.inception.sha256
        measuring["inception"] = load_inception(settings.inception, f"rungs.{stage.key}.evaluation.inception")
    swept = sweep_of(stage.key, data)
    filters = random_convolutions(data["train"].shape[1], options["generator_of"]("filters"))
    texture = whitened(filters, data["train"])
    costs = evaluate_images_cost(
        **swept, classifier=classifier, normalisation=options["normalisation"], texture=texture
    )
    options |= measuring
    found = evaluate_images(Trial(samples, data, classifier=classifier, settings=settings, **options))
    return found | costs | Findings(facts)


def sweep_of(model: str, data: Tensors) -> dict[str, Any]:
    """What the evaluations of quality against cost have in common."""
    swept, own = f"data/samples/{model}.sweep.safetensors", read_metadata(f"data/samples/{model}.safetensors")
    return {"swept": read_tensors(swept), "facts": read_metadata(swept), "own": own, "held_out": data["test"]}


def judge_points(stage: Stage, samples: Tensors, data: Tensors, settings: Any, **options: Any) -> Findings:
    """The findings about a 2D rung, judged by the curves that its data were drawn from."""
    card = read_json(f"data/judges/{options.pop('dataset')}/card.json")
    groups = by_seed(samples["samples"], samples["sampling_seed"])
    how = {"size": settings.sample_count, "generator_of": options["generator_of"], "card": card}
    found = evaluate_points(groups, data, card=card, settings=settings, **options)
    if bool((samples["labels"] >= 0).all()):
        found |= evaluate_point_labels(samples, data, card=card, class_names=card["class_names"], **options)
    return found | evaluate_points_cost(**sweep_of(stage.key, data), **how)


def main(stage: Stage) -> None:
    """Write what is found out about the rung."""
    dataset = stage.parameter(f"rungs.{stage.key}.dataset", str)
    path, drawn = f"data/processed/{dataset}.safetensors", f"data/samples/{stage.key}.safetensors"
    data, metadata, samples = read_tensors(path), read_metadata(path), read_tensors(drawn)
    points, seed = metadata["kind"] == "points", stage.parameter("seed", int)
    kind: type[PointEvaluation] | type[ImageEvaluation] = PointEvaluation if points else ImageEvaluation
    settings: Any = stage.section("evaluation", kind)
    groups = by_seed(samples["samples"], samples["sampling_seed"])
    sizes = {"samples drawn from each sampling seed": groups[0], "held-out": data["test"], "trained on": data["train"]}
    check_sizes(stage, settings.sample_count, sizes)

    def generator_of(*purpose: str | int) -> torch.Generator:
        # Without the rung's name: rungs of the same data meet the same real subsets, so that their numbers compare.
        return generator(seed, stage.name, dataset, *purpose)

    judge = judge_points if points else judge_images
    options = {"dataset": dataset, "normalisation": Normalisation.from_metadata(metadata), "generator_of": generator_of}
    findings = judge(stage, samples, data, settings=settings, **options)
    findings |= evaluate_memorisation(samples, data, settings.memorisation, settings.sample_count, generator_of)
    facts = {"sample_count": settings.sample_count, "sampling_seeds": len(groups), "nfe": read_metadata(drawn)["nfe"]}
    write_findings(stage.key, findings | Findings(facts))


if __name__ == "__main__":
    run_stage(main, configure)
