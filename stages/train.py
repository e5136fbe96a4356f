"""Train one rung of the ladder."""

from typing import Any

from torch import Tensor

from diffusion_ladder.artifacts import read_metadata, read_tensors, write_tensors
from diffusion_ladder.data.normalise import Normalisation, mean_square
from diffusion_ladder.diffusion.terminal_snr import terminal_snr_notice
from diffusion_ladder.processes import Processes, processes_of
from diffusion_ladder.rungs import Rung, build_network, build_scheduler, noise_schedule, parameter_count, save_rung
from diffusion_ladder.runtime import Stage, run_stage
from diffusion_ladder.sampling.preview import draw_preview
from diffusion_ladder.training.ema import ema_decay, half_life
from diffusion_ladder.training.loop import Task, zero_loss
from diffusion_ladder.training.session import Session


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
        dataset=metadata["dataset"],
        network=network.to(stage.device),
        settings=settings,
        schedule=stage.parameter(f"{model}.schedule"),
        sample_shape=sample_shape,
        num_classes=num_classes,
        null_label=num_classes if label_dropout > 0 else None,
        normalisation=Normalisation.from_metadata(metadata),
    )


def circumstances_of(stage: Stage) -> dict[str, Any]:
    """What was computed with: on other devices, in another precision or with other threads the weights differ."""
    return {key: stage.circumstances[key] for key in ("device", "precision", "threads")}


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
    model = f"models.{stage.key}"
    path = f"data/processed/{stage.parameter(f'{model}.dataset')}.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    rung = new_rung(stage, tuple(tensors["train"].shape[1:]), metadata)
    scheduler = build_scheduler(stage.parameter(f"{model}.schedulers.training"), rung.schedule)
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters, {len(tensors['train']):,} training examples")
    notice = terminal_snr_notice(noise_schedule(rung.schedule).terminal_snr, rung.schedule.terminal_snr_limit)
    if notice is not None:
        print(f"{stage.label}: {notice}")
    data, labels = (tensors[name].to(stage.device) for name in ("train", "train_labels"))
    settings, seed = stage.parameter(f"{model}.training"), stage.parameter("seed")
    task = Task(rung, scheduler, data, labels, settings, seed, stage.precision)
    previews = stage.parameter(f"{model}.previews")
    session = Session(stage, task, lambda averaged: draw_preview(averaged, previews, seed, stage.precision), processes)
    with session.locked():
        session.run()
        if session.is_main:
            facts = facts_of(session, metadata, tensors["train"]) | {"computed_with": circumstances_of(stage)}
            save_rung(rung, f"models/{stage.key}", scheduler, facts)
            drawn = session.history.all_previews()
            write_tensors(f"data/samples/{stage.key}.previews.safetensors", drawn, {"model": stage.key})
            session.checkpoints.remove()


def main(stage: Stage) -> None:
    """Train with all processes that were launched."""
    with processes_of(stage.launch, stage.device) as processes:
        train_rung(stage, processes)


if __name__ == "__main__":
    run_stage(main, many_processes=True)
