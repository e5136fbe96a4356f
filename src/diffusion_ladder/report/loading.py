"""How a trained model is loaded and sampled from, as Python that can be run as it stands in its card."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.samplers import MODULES
from diffusion_ladder.params.sampling import Sampling

DRAWN = 4  # samples of an unconditional model
PIPELINE = """import torch
from diffusers import {scheduler}, DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("models/{key}"{trust})
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config, {config})
images = pipe({call}, generator=torch.Generator().manual_seed(0)).images
images[0].save("sample.png")
"""
OWN = """import diffusion_ladder

model = diffusion_ladder.load("models/{key}")  # the averaged weights, with all that sampling needs
samples = model.sample({call})  # {result}
"""


def snippet_of(key: str, rung: RungParameters, class_names: Sequence[str]) -> str:
    """Python that loads a rung and draws from it as its measured samples are drawn.

    Args:
        class_names: of class 0, 1, ...; none where they are not known yet.
    """
    sampling, steps = rung.sampling, rung.schedule.T if rung.sampling.steps == "all" else rung.sampling.steps
    labels: list[Any] = [*class_names[:2]] or [0, 1]
    who: dict[str, Any] = {"class_labels": labels} if rung.conditional else {}
    guidance = guidance_of(sampling)
    if rung.network.name != "diffusers_unet":
        settings = {"sampler": sampling.sampler, "num_inference_steps": steps, **guidance, **given(sampling)}
        result = "float32 points (N, 2)" if rung.network.name == "mlp" else "uint8 images (N, C, H, W)"
        return OWN.format(key=key, call=as_arguments((who or {"count": DRAWN}) | settings), result=result)
    sampler = MODULES[sampling.sampler]
    eta = {"eta": sampling.eta} if "eta" in sampler.step_options and sampling.eta else {}
    return PIPELINE.format(
        key=key,
        trust=", trust_remote_code=True" if brings_code(rung) else "",
        scheduler=sampler.twin.class_name if sampler.twin else "DDPMScheduler",
        config=as_arguments(scheduler_options(sampling)),
        call=as_arguments((who or {"batch_size": DRAWN}) | {"num_inference_steps": steps} | guidance | eta),
    )


def scheduler_options(sampling: Sampling) -> dict[str, Any]:
    """What diffusers' scheduler is made with, in its names."""
    options: dict[str, Any] = {"timestep_spacing": sampling.spacing, "clip_sample": sampling.clip_sample}
    if sampling.variance_type != "fixed_small":
        options["variance_type"] = sampling.variance_type
    twin = MODULES[sampling.sampler].twin
    if sampling.clip_sample and twin and twin.clips_by_thresholding:
        options |= {"thresholding": True, "sample_max_value": 1.0}
    if (kept := sampling.thresholding) is not None:
        ratio, largest = kept.ratio, kept.max_value
        options |= {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": largest}
    return options


def brings_code(rung: RungParameters) -> bool:
    """Whether the folder holds a pipeline.py: diffusers' own pipeline knows neither classes nor folded pixels."""
    return rung.network.name == "diffusers_unet" and (rung.conditional or rung.network.patch_size > 1)


def guidance_of(sampling: Sampling) -> dict[str, Any]:
    """The guidance of a rung's samples, as arguments; none where there is none."""
    if sampling.guidance_scale == 1:
        return {}
    interval = {"guidance_interval": sampling.guidance_interval} if sampling.guidance_interval else {}
    return {"guidance_scale": sampling.guidance_scale, **interval}


def given(sampling: Sampling) -> dict[str, Any]:
    """The settings that shape samples, as far as they are not `Model.sample`'s own."""
    values: dict[str, tuple[Any, Any]] = {"spacing": (sampling.spacing, "trailing"), "eta": (sampling.eta, 0.0)}
    values |= {"clip_sample": (sampling.clip_sample, False), "variance_type": (sampling.variance_type, "fixed_small")}
    kept = {"thresholding": sampling.thresholding.model_dump()} if sampling.thresholding else {}
    return {name: value for name, (value, usual) in values.items() if value != usual} | kept


def as_arguments(values: Mapping[str, Any]) -> str:
    """Keyword arguments in Python, texts in double quotes."""
    return ", ".join(f"{name}={quoted(value)}" for name, value in values.items())


def quoted(value: Any) -> str:
    """A value in Python."""
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    return '"{}"'.format(value.replace("\\", "\\\\").replace('"', '\\"')) if isinstance(value, str) else repr(value)
