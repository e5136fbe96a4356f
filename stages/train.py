"""Train one rung of the ladder."""

from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.data.normalise import Normalisation, mean_square
from diffusion_ladder.device import configure
from diffusion_ladder.diffusion.terminal_snr import terminal_snr_notice
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import read_metadata, read_tensors, write_tensors
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.networks.norm_kernel import kernel
from diffusion_ladder.params.network import network_settings
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.params.training import Previews, Training
from diffusion_ladder.processes import Processes, processes_of
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung, build_network, build_scheduler, parameter_count, save_rung
from diffusion_ladder.sampling.preview import draw_preview
from diffusion_ladder.training.ema import ema_decay, half_life
from diffusion_ladder.training.loop import Task, zero_loss
from diffusion_ladder.training.session import Session


def training_seed(stage: Stage) -> int:
    """The seed of all that is random in training: first weights, order, timesteps, noise and dropped labels.

    Samples and previews come from the root seed alone, so that trainings with other seeds start from the same noise.
    """
    return stage.parameter("seed", int) + stage.section("training", Training).seed


def new_rung(stage: Stage, sample_shape: tuple[int, ...], metadata: dict[str, Any]) -> Rung:
    """The rung with fresh weights, on the stage's device."""
    key = f"rungs.{stage.key}"
    settings = network_settings(stage.parameter(f"{key}.network", dict[str, Any]), f"{key}.network")
    label_dropout = stage.section("training", Training).label_dropout
    num_classes = len(metadata["class_names"]) if stage.parameter(f"{key}.conditional", bool) else 0
    rows = num_classes + (label_dropout > 0) if num_classes else None  # one more row is the null label
    network = build_network(settings, sample_shape, rows, training_seed(stage), stage.key)
    return Rung(
        model=stage.key,
        dataset=metadata["dataset"],
        network=network.to(stage.device),
        settings=settings,
        schedule=stage.parameter(f"{key}.schedule", Schedule),
        sample_shape=sample_shape,
        num_classes=num_classes,
        null_label=num_classes if label_dropout > 0 else None,
        normalisation=Normalisation.from_metadata(metadata),
    )


def shown_examples(tensors: dict[str, Tensor], settings: Training, seed: int, model: str) -> tuple[Tensor, Tensor]:
    """The training split and its labels or, with `training.examples`, so many of them, chosen at random.

    Raises:
        UserError: there are not so many.
    """
    data, labels, count = tensors["train"], tensors["train_labels"], settings.examples
    if count is None:
        return data, labels
    if count > len(data):
        raise UserError(
            f"rungs.{model}.training.examples: {count:,} is more than the {len(data):,} there are; lower it"
        )
    chosen = torch.randperm(len(data), generator=generator(seed, "train", model, "examples"))[:count]
    return data[chosen], labels[chosen]


def circumstances_of(stage: Stage) -> dict[str, Any]:
    """What was computed with: on other devices, in another precision or with other threads the weights differ.

    So they do without a C compiler, where PyTorch's operators do the norms.
    """
    norms = "PyTorch" if stage.device.type != "cpu" or kernel(stage.precision) is None else "compiled"
    return {key: stage.circumstances[key] for key in ("device", "precision", "threads")} | {"norms": norms}


def facts_of(session: Session, metadata: dict[str, Any], train_data: Tensor) -> dict[str, Any]:
    """What rung.json tells about the training."""
    rung, settings = session.rung, session.settings
    last_decay = ema_decay(settings.steps, session.state.average.longest, settings.ema_warmup)
    return {key: metadata[key] for key in ("kind", "class_names")} | {
        "images_seen": settings.steps * settings.batch_size,
        "ema_half_life": half_life(last_decay, settings.batch_size),
        "final_loss": session.history.final_loss(),
        "zero_loss": zero_loss(rung, settings.loss_weight, mean_square(train_data, rung.normalisation)),
    }


def train_rung(stage: Stage, processes: Processes) -> None:
    """Train the network; the main process saves it with its averaged weights and its card, its log and its previews."""
    key = f"rungs.{stage.key}"
    path = f"data/processed/{stage.parameter(f'{key}.dataset', str)}.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    rung = new_rung(stage, tuple(tensors["train"].shape[1:]), metadata)
    scheduler = build_scheduler(stage.parameter(f"{key}.schedulers.training", str), rung.schedule)
    settings, seed = stage.section("training", Training), stage.parameter("seed", int)
    shown, shown_labels = shown_examples(tensors, settings, training_seed(stage), stage.key)
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters, {len(shown):,} training examples")
    notice = terminal_snr_notice(forward_process(rung.schedule).terminal_snr)
    if notice is not None:
        print(f"{stage.label}: {notice}")
    data, labels = shown.to(stage.device), shown_labels.to(stage.device)
    task = Task(rung, scheduler, data, labels, settings, training_seed(stage), stage.precision)
    previews = stage.section("previews", Previews)
    session = Session(stage, task, lambda averaged: draw_preview(averaged, previews, seed, stage.precision), processes)
    with session.locked():
        session.run()
        if session.is_main:
            facts = facts_of(session, metadata, shown) | {"computed_with": circumstances_of(stage)}
            options = {"timestep_spacing": previews.spacing, "clip_sample": previews.clip_sample}  # of its pipeline
            save_rung(rung, f"models/{stage.key}", facts, options)
            drawn = session.history.all_previews()
            write_tensors(f"data/samples/{stage.key}.previews.safetensors", drawn, {"model": stage.key})
            session.checkpoints.remove()


def main(stage: Stage) -> None:
    """Train with all processes that were launched."""
    with processes_of(stage.launch, stage.device) as processes:
        train_rung(stage, processes)


if __name__ == "__main__":
    run_stage(main, configure, many_processes=True)
