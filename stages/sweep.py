"""Draw one rung's samples with every sampler at several costs, and with its own at several scales of guidance."""

import time
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.device import configure
from diffusion_ladder.foundation.artifacts import write_tensors
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.sweep import Sweep
from diffusion_ladder.processes import Processes, processes_of
from diffusion_ladder.rungs import Rung, load_rung, parameter_count
from diffusion_ladder.sampling.loop import Drawing, Samples, draw_samples
from diffusion_ladder.sampling.sweep import Setting, settings_by_table


def draw(stage: Stage, rung: Rung, setting: Setting, processes: Processes) -> Samples:
    """The samples of one setting, of every sampling seed."""
    sweep, seed = stage.section("sweep", Sweep), stage.parameter("seed", int)
    changes = {"guidance_scale": setting.guidance_scale, "batch_size": sweep.batch_size, "eta": sweep.eta}
    settings = stage.section("sampling", Sampling).model_copy(update=changes)
    drawn = setting.sampler, settings, setting.steps, sweep.count, seed, sweep.seeds, stage.precision
    return draw_samples(Drawing(rung, *drawn), processes=processes)


def draw_tables(stage: Stage, processes: Processes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of the file: by table (settings, S * N, ...) samples, and how each was drawn."""
    rung = load_rung(f"models/{stage.key}")
    rung = replace(rung, network=rung.network.to(stage.device))
    print(f"{stage.label}: {parameter_count(rung.network):,} parameters")
    sweep, own = stage.section("sweep", Sweep), stage.section("sampling", Sampling)
    tables = settings_by_table(sweep, own)
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"model": stage.key, "seed": stage.parameter("seed", int), "sampling_seeds": sweep.seeds}
    done, seconds = Counter[str](), Counter[str]()
    bar: dict[str, Any] = {"desc": stage.label, "unit": " settings", "disable": not stage.launch.is_main}
    with tqdm(total=sum(map(len, tables.values())), **bar) as progress:
        for table, settings in tables.items():
            drawn = []
            for setting in settings:
                start = time.perf_counter()
                drawn.append(draw(stage, rung, setting, processes))
                seconds[setting.sampler] += time.perf_counter() - start  # type: ignore[assignment]
                done[setting.sampler] += len(drawn[-1].samples) * drawn[-1].nfe
                progress.update()
            tensors[table] = torch.stack([each.samples for each in drawn])
            facts[table] = [asdict(setting) | {"nfe": each.nfe} for setting, each in zip(settings, drawn, strict=True)]
    for sampler, count in done.items():
        stage.note_work(f"evaluation of the network by {sampler}", count, seconds[sampler])
    return tensors | {"labels": drawn[0].labels, "sampling_seed": drawn[0].sampling_seed}, facts


def main(stage: Stage) -> None:
    """Draw with all processes, and let the main one write."""
    with processes_of(stage.launch, stage.device) as processes:
        tensors, metadata = draw_tables(stage, processes)
    if stage.launch.is_main:
        write_tensors(f"data/samples/{stage.key}.sweep.safetensors", tensors, metadata)


if __name__ == "__main__":
    run_stage(main, configure, many_processes=True)
