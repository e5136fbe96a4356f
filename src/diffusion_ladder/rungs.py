"""From a rung's parameters to its network and scheduler: the only place that knows both worlds, our own and diffusers.

The names in params.yaml are module names under networks/ and schedulers/; a module is imported when a rung names it.
"""

import importlib
import importlib.metadata
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import partial, read_json, write_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.network import Network, network_settings
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.randomness import seed_of
from diffusion_ladder.torchvision_import import repair_torchvision

CARD = "rung.json"
PIPELINE = Path(__file__).parent / "networks/diffusers_pipeline.py"  # travels with the model


@dataclass(frozen=True)
class Rung:
    """A model of the ladder: its network and what is needed to train it and to sample from it.

    Attributes:
        model: its key in params.yaml.
        dataset: what it learns from: rungs of the same data start their samples from the same noise.
        network: called as `network(x_t, timestep, class_labels)`, gives the prediction.
        settings: the network's settings.
        schedule: the forward process.
        sample_shape: (C, H, W) of images, (2,) of points.
        num_classes: classes that condition it; 0 for an unconditional model.
        null_label: the label that stands for none (classifier-free guidance), or None where none is trained.
        normalisation: from data units to the network's and back.
    """

    model: str
    dataset: str
    network: nn.Module
    settings: Network
    schedule: Schedule
    sample_shape: tuple[int, ...]
    num_classes: int
    null_label: int | None
    normalisation: Normalisation


def build_scheduler(name: str, schedule: Schedule, **options: Any) -> Any:
    """The scheduler of module schedulers/`name` for a schedule.

    Args:
        name: one of samplers.MODULES.
        options: further constructor arguments in diffusers' names, such as `timestep_spacing`.

    Returns:
        An object with diffusers' scheduler interface (add_noise, get_velocity, set_timesteps, timesteps, step).
    """
    module = importlib.import_module(f"diffusion_ladder.schedulers.{name}")
    if schedule.rescale_betas_zero_snr:  # no option of every scheduler
        options["rescale_betas_zero_snr"] = True
    return module.Scheduler(
        num_train_timesteps=schedule.T,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule=schedule.name,
        prediction_type=schedule.prediction_type,
        **options,
    )


def network_module(settings: Network) -> Any:
    """The module networks/NAME.py, with its functions build, save and load."""
    if settings.name.startswith("diffusers"):
        repair_torchvision()  # which diffusers' networks import
    return importlib.import_module(f"diffusion_ladder.networks.{settings.name}")


def build_network(
    settings: Network, sample_shape: tuple[int, ...], num_class_embeds: int | None, seed: int, model: str
) -> nn.Module:
    """A network with fresh weights that depend on (seed, model) alone; torch's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "train", model, "weights"))
        return prepared(network_module(settings).build(settings, sample_shape, num_class_embeds))


def prepared(network: nn.Module) -> nn.Module:
    """The network with the weights of its convolutions channels last, as processors and GPUs are fast at them."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def parameter_count(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def save_rung(rung: Rung, folder: str | Path, facts: dict[str, Any], scheduler_options: Mapping[str, Any]) -> None:
    """Write the network and rung.json to a folder; a network of diffusers becomes a whole pipeline of diffusers.

    The files are complete before they take their places in the folder.

    Args:
        facts: what rung.json says besides what loading needs, such as the number of images seen, and `class_names`.
        scheduler_options: of the pipeline's scheduler, such as `timestep_spacing`.
    """
    folder = Path(folder)
    temporary = partial(folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        network_module(rung.settings).save(rung.network, temporary)
        if rung.settings.name == "diffusers_unet":
            save_pipeline(rung, temporary, facts["class_names"], scheduler_options)
        write_json(temporary / CARD, describe(rung) | facts)
        folder.mkdir(exist_ok=True)
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_pipeline(rung: Rung, folder: Path, class_names: list[str], scheduler_options: Mapping[str, Any]) -> None:
    """Add to the folder of a network of diffusers what makes it a pipeline: scheduler, model_index.json, pipeline.py.

    A plain image network is one of diffusers' own; one that is told a class or folds pixels brings its code along. All
    lies in one folder, as with google/ddpm-cifar10-32: its UNet2DModel and its scheduler can be loaded alone, too.
    """
    index: dict[str, Any] = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": importlib.metadata.version("diffusers"),
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    patch_size, folding = (getattr(rung.settings, name) for name in ("patch_size", "folding"))
    if rung.num_classes or patch_size > 1:
        shutil.copyfile(PIPELINE, folder / "pipeline.py")
        names = {str(number): name for number, name in enumerate(class_names)} if rung.num_classes else None
        index |= {"_class_name": ["pipeline", "LadderPipeline"], "patch_size": patch_size, "folding": folding}
        index |= {"id2label": names}
    write_json(folder / "model_index.json", index)
    build_scheduler("diffusers_ddpm", rung.schedule, **scheduler_options).save_pretrained(folder)


def describe(rung: Rung) -> dict[str, Any]:
    """What rung.json says of a rung."""
    return {
        "model": rung.model,
        "dataset": rung.dataset,
        "network": rung.settings.model_dump(),
        "schedule": rung.schedule.model_dump(),
        "terminal_snr": forward_process(rung.schedule).terminal_snr,
        "forward_process": forward_process(rung.schedule).facts(),
        "sample_shape": list(rung.sample_shape),
        "num_classes": rung.num_classes,
        "null_label": rung.null_label,
        "kind": "images" if rung.normalisation.bytes else "points",
        "normalisation": rung.normalisation.as_metadata(),
        "parameters": parameter_count(rung.network),
    }


def load_rung(folder: str | Path) -> Rung:
    """Read what `save_rung` wrote; the network is in evaluation mode."""
    card = read_json(Path(folder) / CARD)
    settings = network_settings(card["network"])
    shape = tuple(card["sample_shape"])
    return Rung(
        model=card["model"],
        dataset=card["dataset"],
        network=prepared(network_module(settings).load(settings, shape, Path(folder))).eval(),
        settings=settings,
        schedule=Schedule.model_validate(card["schedule"]),
        sample_shape=shape,
        num_classes=card["num_classes"],
        null_label=card["null_label"],
        normalisation=Normalisation.from_metadata(card),
    )
