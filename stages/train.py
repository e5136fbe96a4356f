"""Train one rung of the ladder."""

import copy
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.artifacts import read_metadata, read_tensors, write_tensors, write_text
from diffusion_ladder.data.normalise import Normalisation, mean_square
from diffusion_ladder.diffusion.terminal_snr import terminal_snr_notice
from diffusion_ladder.errors import UserError
from diffusion_ladder.params import Previews, Training
from diffusion_ladder.processes import Processes, ProcessLostError, processes_of
from diffusion_ladder.rungs import Rung, build_network, build_scheduler, noise_schedule, parameter_count, save_rung
from diffusion_ladder.runtime import Stage, run_stage
from diffusion_ladder.sampling.preview import draw_preview
from diffusion_ladder.training.checkpoint import Checkpoints, give_to_all, noted_signals
from diffusion_ladder.training.ema import ema_decay, half_life
from diffusion_ladder.training.history import History
from diffusion_ladder.training.loop import TrainingState, draw_batch, initial_state, train, zero_loss


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


def preview_steps(settings: Training, previews: Previews) -> set[int]:
    """The steps after which samples are drawn."""
    return {max(1, round(share * settings.steps)) for share in previews.at}


def preview(stage: Stage, rung: Rung, checkpoints: Checkpoints, history: History) -> Tensor:
    """Samples by the network as it is; weights that give none have run away."""
    checkpoints.require_finite(history)
    settings = stage.parameter(f"models.{stage.key}.previews")
    try:
        return draw_preview(rung, settings, stage.parameter("seed"), stage.precision)
    except UserError as error:
        raise UserError(f"preview after step {history.steps}: {error}; {checkpoints.words}") from error


def log_path(stage: Stage) -> str:
    """Where the log of a run grows while it goes on, so that `dvc plots` shows it."""
    return f"reports/training/{stage.key}.tsv"


def write_log(stage: Stage, history: History) -> None:
    """Write the log of the run so far, in the main process."""
    if stage.launch.is_main:
        write_text(log_path(stage), history.log())


def begin(stage: Stage, checkpoints: Checkpoints, state: TrainingState, history: History, processes: Processes) -> None:
    """Go back to the last checkpoint, if there is one, and say so."""
    if stage.launch.is_main:
        for folder in checkpoints.others():
            print(f"{stage.label}: {folder} was made with other parameters, data or code: not used", file=sys.stderr)
        if path := checkpoints.restore(state, history):
            print(f"{stage.label}: goes on after step {state.steps}, from {path}", file=sys.stderr)
    if processes.count > 1:
        give_to_all(processes, state, history)
    write_log(stage, history)


def progress_bar(stage: Stage, rung: Rung, settings: Training, steps: int) -> tqdm:
    """Loss, images per second and time left."""
    return tqdm(
        total=settings.steps * settings.batch_size,
        initial=steps * settings.batch_size,
        desc=stage.label,
        unit=" images" if rung.normalisation.bytes else " points",
        unit_scale=True,
        disable=not stage.launch.is_main,
    )


def averaged(rung: Rung, state: TrainingState) -> Rung:
    """The rung as it would be if training ended here."""
    network = copy.deepcopy(state.network)
    state.average.copy_to(network)
    return replace(rung, network=network.eval())


def stop(
    stage: Stage,
    checkpoints: Checkpoints,
    state: TrainingState,
    history: History,
    processes: Processes,
    signals: list[int],
) -> NoReturn:
    """Save, say where, and exit with the signal's usual code, once all processes have got here."""
    if stage.launch.is_main:
        saved = checkpoints.save(state, history)
        print(f"{stage.label}: stopped after step {state.steps}, saved in {saved}", file=sys.stderr)
    processes.wait()  # when the first process ends, the launcher ends the others
    sys.exit(128 + (signals or [signal.SIGTERM])[0])


def run_training(
    stage: Stage,
    rung: Rung,
    scheduler: Any,
    data: Tensor,
    labels: Tensor,
    checkpoints: Checkpoints,
    processes: Processes,
) -> tuple[TrainingState, History]:
    """Train from the last checkpoint, or from the beginning; how it ended.

    SIGINT, SIGTERM and the loss of another process save and end it.
    """
    settings, is_main = stage.parameter(f"models.{stage.key}.training"), stage.launch.is_main
    previewed = preview_steps(settings, stage.parameter(f"models.{stage.key}.previews"))
    if (mode := stage.parameter("runtime").compile) != "never":
        rung.network.compile(mode=mode)  # in place: the weights keep their names
    state, history = initial_state(rung, settings), History(settings, rung.schedule.T, stage.device)
    begin(stage, checkpoints, state, history, processes)
    seed, precision = stage.parameter("seed"), stage.precision
    steps = train(rung, scheduler, data, labels, settings, seed, precision, state, processes)
    with (
        noted_signals(repeated=processes.count > 1) as signals,
        progress_bar(stage, rung, settings, state.steps) as progress,
    ):
        try:
            for step in steps:
                history.add(step)
                progress.update(settings.batch_size)
                if history.row_is_due:
                    checkpoints.require_finite(history)
                    progress.set_postfix(loss=f"{history.close_row():.4f}")
                    write_log(stage, history)
                if step.number in previewed and is_main:
                    history.add_preview(preview(stage, averaged(rung, state), checkpoints, history))
                if processes.any(bool(signals)):
                    progress.close()
                    stop(stage, checkpoints, state, history, processes, signals)
                if checkpoints.due and is_main:
                    checkpoints.save(state, history)
        except ProcessLostError as error:
            if not is_main:
                raise
            saved = checkpoints.save(state, history)
            raise ProcessLostError(f"{error}; stopped after step {state.steps}, saved in {saved}") from None
    return state, history


def facts_of(
    rung: Rung,
    settings: Training,
    metadata: dict[str, Any],
    train_data: Tensor,
    state: TrainingState,
    history: History,
) -> dict[str, Any]:
    """What rung.json tells about the training."""
    last_decay = ema_decay(settings.steps, state.average.longest, settings.ema_warmup)
    return {key: metadata[key] for key in ("dataset", "kind", "class_names")} | {
        "images_seen": settings.steps * settings.batch_size,
        "ema_half_life": half_life(last_decay, settings.batch_size),
        "final_loss": history.final_loss(),
        "zero_loss": zero_loss(rung, settings.loss_weight, mean_square(train_data, rung.normalisation)),
    }


def train_rung(stage: Stage, processes: Processes) -> None:
    """Train the network; the main process saves it with its averaged weights and its card, its log and its previews."""
    model = f"models.{stage.key}"
    settings, seed = stage.parameter(f"{model}.training"), stage.parameter("seed")
    path = f"data/processed/{stage.parameter(f'{model}.dataset')}.safetensors"
    tensors, metadata = read_tensors(path), read_metadata(path)
    rung = new_rung(stage, tuple(tensors["train"].shape[1:]), metadata)
    scheduler = build_scheduler(stage.parameter(f"{model}.schedulers.training"), rung.schedule)
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters, {len(tensors['train']):,} training examples")
    notice = terminal_snr_notice(noise_schedule(rung.schedule).terminal_snr, rung.schedule.terminal_snr_limit)
    if notice is not None:
        print(f"{stage.label}: {notice}")
    data, labels = (tensors[name].to(stage.device) for name in ("train", "train_labels"))
    checkpoints = Checkpoints(
        Path(".checkpoints"),
        stage.key,
        stage.fingerprint(),
        stage.checkpoint_seconds,
        lambda step: draw_batch(rung, data, labels, settings, step, seed),
    )
    with checkpoints.locked() if stage.launch.is_main else nullcontext():
        state, history = run_training(stage, rung, scheduler, data, labels, checkpoints, processes)
        if stage.launch.is_main:
            facts = facts_of(rung, settings, metadata, tensors["train"], state, history)
            save_rung(rung, f"models/{stage.key}", scheduler, facts)
            previews = {"samples": torch.stack(history.previews), "steps": torch.tensor(history.preview_steps)}
            write_tensors(f"data/samples/{stage.key}.previews.safetensors", previews, {"model": stage.key})
            checkpoints.remove()


def main(stage: Stage) -> None:
    """Train with all processes that were launched."""
    with processes_of(stage.launch, stage.device) as processes:
        train_rung(stage, processes)


if __name__ == "__main__":
    run_stage(main, many_processes=True)
