"""Train the classifier that judges one data set's samples."""

from typing import Any

from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.device import configure
from diffusion_ladder.evaluation.classifier import (
    Classifier,
    check_accuracy,
    judge,
    new_classifier,
    parameter_count,
    save_classifier,
    train,
)
from diffusion_ladder.foundation.artifacts import read_metadata, read_tensors, write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.classifier import Classifier as Settings
from diffusion_ladder.randomness import generator


def trained_classifier(stage: Stage, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Classifier:
    """A new classifier, trained on the stage's device."""
    settings = stage.parameter(f"classifiers.{stage.key}", Settings)
    weights, order, augmentation = (
        generator(stage.parameter("seed", int), stage.name, stage.key, purpose)
        for purpose in ("weights", "order", "augmentation")
    )
    classifier = new_classifier(tensors["train"].shape[1:], settings, len(metadata["class_names"]), weights)
    images, labels = (tensors[name].to(stage.device) for name in ("train", "train_labels"))
    print(f"{stage.label}: {parameter_count(classifier):,} parameters, {len(images):,} training images")
    normalisation = Normalisation.from_metadata(metadata)
    losses = train(classifier.to(stage.device), images, labels, normalisation, settings, order, augmentation)
    for loss in tqdm(losses, total=settings.steps, desc=stage.label, unit=" steps"):
        last = loss
    if not bool(last.isfinite()):
        raise UserError(f"the loss is {float(last)}: lower classifiers.{stage.key}.learning_rate")
    return classifier


def accuracies(predictions: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy with its standard error; of the class recognised worst; and of always naming the commonest class."""
    correct = (predictions == labels).double()
    return {
        "accuracy": float(correct.mean()),
        "accuracy_std": float(correct.std(correction=0)) / len(correct) ** 0.5,
        "worst_class_accuracy": min(float(correct[labels == label].mean()) for label in labels.unique()),
        "commonest_class_share": float(labels.bincount().max()) / len(labels),
    }


def main(stage: Stage) -> None:
    """Train on the training split, measure on the held-out one, write both down if the classifier is good enough."""
    settings = stage.parameter(f"classifiers.{stage.key}", Settings)
    path = f"data/processed/{stage.key}.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    classifier = trained_classifier(stage, tensors, metadata)
    predictions = {
        split: judge(classifier, tensors[split], Normalisation.from_metadata(metadata)).predictions
        for split in ("train", "test")
    }
    measured = accuracies(predictions["test"], tensors["test_labels"])
    check_accuracy(measured["accuracy"], settings.min_accuracy, f"classifiers.{stage.key}")
    measured["train_accuracy"] = float((predictions["train"] == tensors["train_labels"]).double().mean())
    measured = {key: round(value, 6) for key, value in measured.items()}
    facts = {name: metadata[name] for name in ("dataset", "kind", "class_names", "normalisation")}
    facts |= {"accuracy": measured["accuracy"], "settings": settings.model_dump()}
    save_classifier(classifier, f"data/judges/{stage.key}/classifier", facts)
    counts = {"train_count": len(tensors["train"]), "test_count": len(tensors["test"])}
    write_json(f"reports/metrics/classifiers/{stage.key}.json", measured | counts)


if __name__ == "__main__":
    run_stage(main, configure)
