"""Profiles a training step of every rung: python benchmarks/profiles.py [--preset NAME] [RUNG...].

The operators on which a step spends most time go to benchmarks/results/ under the machine's name, and
benchmarks/README.md is written anew.
"""

import argparse
from pathlib import Path
from typing import Any

import machine
import page
import torch
from torch.profiler import ProfilerActivity, profile
from training import RESULTS, Contender, ours, task_of

from diffusion_ladder import device as compute
from diffusion_ladder.foundation.artifacts import write_json
from diffusion_ladder.params.whole import load_parameters, validate
from diffusion_ladder.presets import merged_parameters

STEPS = 5
SHOWN = 8  # operators


def operators(contender: Contender, device: torch.device) -> list[dict[str, Any]]:
    """The operators by their own share of a step's time (on the GPU where there is one), the largest first."""
    contender.switch()
    for _ in range(2):
        next(contender.steps)
    gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as profiled:
        for _ in range(STEPS):
            next(contender.steps)
        machine.settle(device)
    events = profiled.key_averages()
    spent = {event.key: event.self_device_time_total if gpu else event.self_cpu_time_total for event in events}
    total = sum(spent.values())
    largest = sorted(events, key=lambda event: spent[event.key], reverse=True)[:SHOWN]
    return [
        {
            "operator": event.key,
            "share": spent[event.key] / total,
            "milliseconds": spent[event.key] / STEPS / 1e3,
            "calls": event.count / STEPS,
        }
        for event in largest
    ]


def main() -> None:
    """Profile, write the results and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rungs", nargs="*", help="keys of rungs in params.yaml; all where none is given")
    parser.add_argument("--preset", help="an overlay on params.yaml, such as full")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    arguments = parser.parse_args()
    preset = arguments.preset
    parameters = validate(merged_parameters(preset), preset) if preset else load_parameters()
    device = compute.configure(parameters.runtime).device
    models = {}
    for name in arguments.rungs or parameters.rungs:
        models[name] = operators(ours(task_of(name, parameters), parameters.runtime), device)
        print(f"{name}: {models[name][0]['operator']} takes {models[name][0]['share']:.0%}")
    facts, sizes = machine.facts(device), preset or "default"
    name = f"profile-{machine.file_name(facts)}-{sizes}.json"
    write_json(arguments.results / name, {"machine": facts, "sizes": sizes, "models": models})
    page.write(arguments.results)


if __name__ == "__main__":
    main()
