"""Train the classifier that judges one data set's samples."""

from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.artifacts import read_metadata, read_tensors, write_json
from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.classifier import (
    Classifier,
    initialise,
    judge,
    parameter_count,
    save_classifier,
    train,
)
from diffusion_ladder.runtime import Stage, generator, run_stage


def trained_classifier(stage: Stage, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Classifier:
    """A new classifier, trained on the stage's device."""
    settings = stage.parameter(f"classifiers.{stage.key}")
    weights, order, augmentation = (
        generator(stage.parameter("seed"), stage.name, stage.key, purpose)
        for purpose in ("weights", "order", "augmentation")
    )
    shape, classes = tensors["train"].shape[1:], len(metadata["class_names"])
    classifier = Classifier(shape, settings.channels, settings.feature_size, classes)
    initialise(classifier, weights)
    images, labels = (tensors[name].to(stage.device) for name in ("train", "train_labels"))
    print(f"{stage.label}: {parameter_count(classifier):,} parameters, {len(images):,} training images")
    normalisation = Normalisation.from_metadata(metadata)
    losses = train(classifier.to(stage.device), images, labels, normalisation, settings, order, augmentation)
    for _ in tqdm(losses, total=settings.steps, desc=stage.label, unit=" steps"):
        pass
    return classifier


def accuracies(correct: Tensor, labels: Tensor) -> dict[str, float]:
    """Overall accuracy, its standard error, and the accuracy of the class that is recognised worst."""
    by_class = [float(correct[labels == label].mean()) for label in labels.unique()]
    error = float(correct.std(correction=0)) / len(correct) ** 0.5
    return {"accuracy": float(correct.mean()), "accuracy_std": error, "worst_class_accuracy": min(by_class)}


def main(stage: Stage) -> None:
    """Train on the training split, measure on the held-out one, write both down."""
    dataset = stage.parameter(f"classifiers.{stage.key}").dataset
    path = f"data/processed/{dataset}.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    classifier = trained_classifier(stage, tensors, metadata)
    correct = {
        split: judge(classifier, tensors[split], Normalisation.from_metadata(metadata)).predictions
        == tensors[f"{split}_labels"]
        for split in ("train", "test")
    }
    measured = accuracies(correct["test"].double(), tensors["test_labels"])
    chance = float(torch.bincount(tensors["test_labels"]).max()) / len(tensors["test_labels"])
    facts = {name: metadata[name] for name in ("dataset", "kind", "class_names", "normalisation")}
    save_classifier(classifier, f"models/classifiers/{stage.key}", facts | {"accuracy": measured["accuracy"]})
    counts = {"train_count": len(tensors["train"]), "test_count": len(tensors["test"])}
    references = {"train_accuracy": float(correct["train"].double().mean()), "largest_class_share": chance}
    write_json(f"reports/metrics/classifiers/{stage.key}.json", measured | references | counts)


if __name__ == "__main__":
    run_stage(main)
