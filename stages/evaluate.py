"""Measure one rung's samples against held-out data, with floor and ceiling."""

from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.artifacts import read_json, read_metadata, read_tensors, write_json, write_table, write_tensors
from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.errors import UserError
from diffusion_ladder.evaluation.bounds import Sizes
from diffusion_ladder.evaluation.classifier import load_classifier, parameter_count
from diffusion_ladder.evaluation.findings import Findings
from diffusion_ladder.evaluation.images import evaluate_images
from diffusion_ladder.evaluation.points import evaluate_points
from diffusion_ladder.randomness import generator
from diffusion_ladder.runtime import Stage, run_stage

Tensors = dict[str, Tensor]


def check_sizes(stage: Stage, sizes: Sizes, available: dict[str, Tensor]) -> None:
    """Refuse a comparison of more samples than there are."""
    for what, values in available.items():
        if len(values) < sizes.sample_count:
            raise UserError(
                f"evaluation.{stage.key}.sample_count: {sizes.sample_count} is more than the {len(values)} {what}; "
                "lower it"
            )


def judge_images(stage: Stage, samples: Tensors, comparison: Tensors, data: Tensors, **options: Any) -> Findings:
    """The findings about an image rung, and which classifier found them."""
    classifier, card = load_classifier(stage.parameter(f"models.{stage.key}.judge"))
    classifier = classifier.to(stage.device)
    print(f"{stage.label}: judged by a classifier of {parameter_count(classifier):,} parameters")
    options |= {"classifier": classifier, "class_names": card["class_names"]}
    facts = {
        "extractor": f"{card['dataset']} classifier",
        "extractor_sha256": card["weights_sha256"],
        "extractor_accuracy": card["accuracy"],
    }
    return Findings(evaluate_images(samples, comparison, data, **options) | facts)


def judge_points(stage: Stage, samples: Tensors, comparison: Tensors, data: Tensors, **options: Any) -> Findings:
    """The findings about a 2D rung, judged by the curves that its data were drawn from."""
    card = read_json(f"{stage.parameter(f'models.{stage.key}.judge')}/card.json")
    return Findings(evaluate_points(samples["samples"], comparison["samples"], data, card=card, **options))


def write_findings(model: str, findings: Findings) -> None:
    """Write each form into its place."""
    for name, rows in findings.tables.items():
        write_table(f"reports/tables/{model}/{name}.tsv", rows)
    write_tensors(f"data/evaluation/{model}.safetensors", findings.tensors, {"model": model})
    write_json(f"reports/metrics/{model}.json", findings.numbers)


def main(stage: Stage) -> None:
    """Write what is found out about the rung."""
    dataset = stage.parameter(f"models.{stage.key}.dataset")
    path = f"data/processed/{dataset}.safetensors"
    data, metadata = read_tensors(path), read_metadata(path)
    samples = read_tensors(f"data/samples/{stage.key}.safetensors")
    comparison = read_tensors(f"data/samples/{stage.key}.comparison.safetensors")
    settings, seed = stage.parameter(f"evaluation.{stage.key}"), stage.parameter("seed")
    sizes = Sizes(settings.sample_count, settings.repetitions)
    check_sizes(
        stage, sizes, {"samples drawn": samples["samples"], "held-out": data["test"], "trained on": data["train"]}
    )

    def generator_of(*purpose: str | int) -> torch.Generator:
        # Without the rung's name: rungs of the same data meet the same real subsets, so that their numbers compare.
        return generator(seed, stage.name, dataset, *purpose)

    judge = judge_points if metadata["kind"] == "points" else judge_images
    options = {"normalisation": Normalisation.from_metadata(metadata), "sizes": sizes, "generator_of": generator_of}
    findings = judge(stage, samples, comparison, data, **options)
    counts = {"sample_count": sizes.sample_count, "comparison_count": len(comparison["samples"])}
    nfe = {
        "nfe": read_metadata(f"data/samples/{stage.key}.safetensors")["nfe"],
        "nfe_of_comparison": read_metadata(f"data/samples/{stage.key}.comparison.safetensors")["nfe"],
    }
    write_findings(stage.key, findings | Findings(counts | nfe | {"repetitions": sizes.repetitions}))


if __name__ == "__main__":
    run_stage(main)
