"""Hold one 2D rung's learnt score against the exact one: as numbers, and in figures."""

from dataclasses import asdict

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation, normalise
from diffusion_ladder.device import configure
from diffusion_ladder.diffusion.targets import x0_and_epsilon
from diffusion_ladder.evaluation.scores import (
    Epsilon,
    ScoreErrors,
    ScoreFields,
    score_errors,
    score_fields,
    spread_timesteps,
)
from diffusion_ladder.figures.canvas import house_style
from diffusion_ladder.figures.scores import exhibits
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import (
    read_metadata,
    read_tensors,
    write_bytes,
    write_json,
    write_table,
    write_tensors,
)
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.score import Score
from diffusion_ladder.randomness import generator
from diffusion_ladder.rungs import Rung, load_rung, parameter_count
from diffusion_ladder.sampling.guidance import conditional

LEVELS = ("low", "middle", "high")  # of noise, at the timesteps whose fields are shown


def learnt_epsilon(rung: Rung) -> Epsilon:
    """The network's epsilon, whatever it predicts, in float32; of a conditional network, that without a class."""
    alpha_bar = forward_process(rung.schedule).alpha_bar

    def epsilon(x_t: Tensor, t: int) -> Tensor:
        labels = None if rung.null_label is None else torch.full((len(x_t),), rung.null_label, device=x_t.device)
        prediction = conditional(rung, labels, torch.float32)(x_t, torch.tensor(t))
        return x0_and_epsilon(rung.schedule.prediction_type, prediction, x_t, alpha_bar[t]).epsilon

    return epsilon


def read_points(dataset: str) -> tuple[Tensor, Tensor]:
    """The training points and the held-out ones, (N, 2) and (M, 2), normalised."""
    path = f"data/processed/{dataset}.safetensors"
    data, normalisation = read_tensors(path), Normalisation.from_metadata(read_metadata(path))
    return normalise(data["train"], normalisation), normalise(data["test"], normalisation)


def write_figures(folder: str, fields: ScoreFields, errors: ScoreErrors) -> None:
    """Write the figures, then captions.json, which lists them."""
    captions = []
    with house_style():
        for exhibit in exhibits(fields, errors):
            write_bytes(f"{folder}/{exhibit.file}", exhibit.content)
            captions.append(exhibit.entry())
    write_json(f"{folder}/captions.json", captions)


@torch.no_grad()
def main(stage: Stage) -> None:
    """Write the fields and the errors, a table of these, those at the timesteps shown, and the figures of both."""
    settings = stage.section("score", Score)
    train, test = read_points(stage.parameter(f"rungs.{stage.key}.dataset", str))
    rung = load_rung(f"models/{stage.key}")
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters")
    schedule, learnt = forward_process(rung.schedule), learnt_epsilon(rung)
    shown = [max(1, round(share * schedule.T)) - 1 for share in settings.fields_at]
    timesteps = sorted({*spread_timesteps(schedule.T, settings.error_timesteps), *shown})
    seed = stage.parameter("seed", int)
    draws = [generator(seed, "compare_scores", stage.key, number) for number in range(settings.seeds)]
    with tqdm(total=len(timesteps), desc=stage.label, unit=" timesteps") as progress:
        errors = score_errors(learnt, train, test, schedule, timesteps, settings.error_points, draws, progress.update)
    fields = score_fields(learnt, train, schedule, shown, settings.reach, settings.grid)
    tensors = {f"fields.{name}": value for name, value in asdict(fields).items()}
    tensors |= {f"errors.{name}": value for name, value in asdict(errors).items()}
    write_tensors(f"data/scores/{stage.key}.safetensors", tensors, {"model": stage.key})
    numbers: dict[str, float] = {}
    for name, t in zip(LEVELS, shown, strict=True):
        numbers |= errors.numbers(f"score_error_{name}_noise", timesteps.index(t))
    write_table(f"reports/tables/scores/{stage.key}/score_error.tsv", errors.table())
    write_json(f"reports/metrics/scores/{stage.key}.json", numbers)
    write_figures(f"reports/figures/scores/{stage.key}", fields, errors)


if __name__ == "__main__":
    run_stage(main, configure)
