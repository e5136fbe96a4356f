"""Train one rung of the ladder."""

import math
from typing import Any

import torch
from tqdm import tqdm

from diffusion_ladder.artifacts import read_metadata, read_tensors, write_text
from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.diffusion.schedules import terminal_snr_notice
from diffusion_ladder.errors import UserError
from diffusion_ladder.params import Training
from diffusion_ladder.rungs import Rung, build_network, build_scheduler, noise_schedule, parameter_count, save_rung
from diffusion_ladder.runtime import Stage, run_stage
from diffusion_ladder.training.loop import train


def new_rung(stage: Stage, sample_shape: tuple[int, ...], metadata: dict[str, Any]) -> Rung:
    """The rung with fresh weights, on the stage's device."""
    model = f"models.{stage.key}"
    settings = stage.parameter(f"{model}.network")
    label_dropout = stage.parameter(f"{model}.training").label_dropout
    num_classes = len(metadata["class_names"]) if metadata["kind"] == "portraits" else 0
    rows = num_classes + (label_dropout > 0) if num_classes else None  # one more row is the null label
    network = build_network(settings, sample_shape, rows, stage.parameter("seed"), stage.key)
    return Rung(
        model=stage.key,
        network=network.to(stage.device),
        settings=settings,
        schedule=stage.parameter(f"{model}.schedule"),
        sample_shape=sample_shape,
        num_classes=num_classes,
        null_label=num_classes if label_dropout > 0 else None,
        normalisation=Normalisation.from_metadata(metadata),
    )


def log_of(steps: Any, settings: Training, progress: tqdm) -> str:
    """Run the loop; its log as tab-separated values, each row the mean over the steps since the row before."""
    rows = ["step\timages\tloss\tgradient_norm\tlearning_rate"]
    losses: list[torch.Tensor] = []
    norms: list[torch.Tensor] = []
    for step in steps:
        losses.append(step.loss)
        norms.append(step.gradient_norm)
        progress.update(settings.batch_size)
        if step.number % settings.log_every == 0 or step.number == settings.steps:
            loss, norm = (float(torch.stack(values).mean()) for values in (losses, norms))
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss is {loss} at step {step.number}; lower training.learning_rate or training.gradient_clip"
                )
            images = step.number * settings.batch_size
            rows.append(f"{step.number}\t{images}\t{loss:.6g}\t{norm:.6g}\t{step.learning_rate:.6g}")
            progress.set_postfix(loss=f"{loss:.4f}")
            losses.clear()
            norms.clear()
    return "\n".join(rows) + "\n"


def main(stage: Stage) -> None:
    """Train the network, then save it with its averaged weights, its card and the log of its losses."""
    model = f"models.{stage.key}"
    settings = stage.parameter(f"{model}.training")
    dataset = stage.parameter(f"{model}.dataset")
    path = f"data/processed/{dataset}.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    rung = new_rung(stage, tuple(tensors["train"].shape[1:]), metadata)
    scheduler = build_scheduler(stage.parameter(f"{model}.schedulers.training"), rung.schedule)
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters, {len(tensors['train']):,} training examples")
    notice = terminal_snr_notice(noise_schedule(rung.schedule).terminal_snr, rung.schedule.terminal_snr_limit)
    if notice is not None:
        print(f"{stage.label}: {notice}")
    data, labels = (tensors[name].to(stage.device) for name in ("train", "train_labels"))
    steps = train(rung, scheduler, data, labels, settings, stage.parameter("seed"), stage.precision)
    total = settings.steps * settings.batch_size
    with tqdm(total=total, desc=stage.label, unit=" examples", unit_scale=True) as progress:
        log = log_of(steps, settings, progress)
    facts = {key: metadata[key] for key in ("dataset", "kind", "class_names")}
    save_rung(rung, f"models/{stage.key}", scheduler, facts | {"images_seen": total})
    write_text(f"reports/training/{stage.key}.tsv", log)


if __name__ == "__main__":
    run_stage(main)
