"""What the commands that draw share: a rung by name, its settings with those of the command, refusals in one line."""

import argparse
import collections
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.device import Compute, configure
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.section import load_yaml, merge
from diffusion_ladder.model import Model, load
from diffusion_ladder.params.consistency import check_sampling
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.whole import Parameters, validate
from diffusion_ladder.sampling.loop import sampler_for

DRAWN = Path("drawn")  # where the commands write, unless they are told


@dataclass(frozen=True)
class Asked:
    """What a command works with.

    Attributes:
        model: the trained rung, on its device.
        settings: how samples are drawn, by params.yaml and the command's options.
        parameters: the whole of params.yaml, with these settings.
        compute: device and precision.
    """

    model: Model
    settings: Sampling
    parameters: Parameters
    compute: Compute

    def progress(self, samples: int) -> tqdm:
        """A bar for drawing so many samples, which counts the steps of each."""
        scheduler, _ = sampler_for(self.settings.sampler, self.model.rung, self.settings, self.settings.steps)
        return tqdm(total=samples * len(scheduler.timesteps), unit=" steps", desc=self.model.rung.model)


def prepare(rung: str, options: Mapping[str, Any]) -> Asked:
    """The rung called so, with the settings of params.yaml and over them those of a command.

    Raises:
        UserError: there is no such rung, it isn't trained, or a setting doesn't fit it.
    """
    parameters = parameters_with(rung, options)
    folder = Path("models") / rung
    if not (folder / "rung.json").is_file():
        raise UserError(f"{folder} holds no trained model: `dvc repro train@{rung}` trains it")
    compute = configure(parameters.runtime)
    return Asked(load(folder).to(compute.device), parameters.rungs[rung].sampling, parameters, compute)


def parameters_with(rung: str, options: Mapping[str, Any]) -> Parameters:
    """params.yaml with other values in the rung's section `sampling`, checked.

    Raises:
        UserError: there is no such rung, or a setting doesn't fit it.
    """
    values = load_yaml("params.yaml")
    known_rung(rung, values["rungs"])
    values = merge(values, {"rungs": {rung: {"sampling": dict(options)}}})
    parameters = validate(values, "these options" if options else "params.yaml")
    changed = parameters.rungs[rung]
    check_sampling(f"rungs.{rung}", changed, parameters.datasets[changed.dataset])
    return parameters


def known_rung(name: str, rungs: Mapping[str, Any]) -> None:
    """Raise UserError unless there is a rung called so."""
    if name not in rungs:
        raise UserError(f"there is no rung {name}, but {', '.join(rungs)}")


def steps_of(text: str) -> int | str:
    """A number of steps, or all."""
    return text if text == "all" else int(text)


def add_sampler(parser: argparse.ArgumentParser) -> None:
    """The options that choose a sampler; without them, the rung's own settings hold."""
    parser.add_argument("--sampler", help="ddpm, ddim, dpm_solver or heun, each also with diffusers_ before it")
    parser.add_argument("--steps", type=steps_of, help="of the sampler: a number, or all")
    parser.add_argument("--spacing", choices=["leading", "linspace", "trailing"], help="which timesteps are visited")
    parser.add_argument("--guidance-scale", type=float, metavar="W", help="1 is the conditional model alone")
    parser.add_argument("--eta", type=float, help="noise of DDIM: 0 none, 1 as much as DDPM's")
    parser.add_argument("--clip-sample", action=argparse.BooleanOptionalAction, help="keep the predicted x_0 in range")


SAMPLER_OPTIONS = ("sampler", "steps", "spacing", "guidance_scale", "eta", "clip_sample")


def sampler_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_sampler` that were given, as keys of `sampling`."""
    values = {name: getattr(arguments, name) for name in SAMPLER_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def picture_of(pixels: Tensor) -> Image.Image:
    """A picture of (C, H, W) uint8 pixels, grey or RGB."""
    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy())


def file_names(class_names: Sequence[str]) -> list[str]:
    """The classes' names as parts of files' names: with the class's number where two would be the same."""
    stems = [re.sub(r"\W+", "_", name) or "_" for name in class_names]
    alike = collections.Counter(stem.casefold() for stem in stems)
    return [f"{stem}-{index}" if alike[stem.casefold()] > 1 else stem for index, stem in enumerate(stems)]


def run(main: Callable[[], None]) -> None:
    """Run a command; an error that the user can mend is one line and exit code 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
