"""Portraits drawn with DiceBear and rasterised by resvg, from a seed and options."""

import difflib
import functools
import importlib.resources
import io
import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy
from tqdm import tqdm

from diffusion_ladder.data.portraits.decoding import decode_image
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import DicebearSource
from diffusion_ladder.randomness import numpy_generator

FEMALE, MALE = 1, 2  # the codes that options exist for; portraits of other codes are drawn like either
POOL_FROM = 400  # fewer portraits are drawn sooner than processes start
MAX_PROCESSES = 8


@dataclass(frozen=True)
class Portrait:
    """One portrait: everything that its picture depends on, and its other columns."""

    number: int
    gender: int
    popularity: float
    style: str
    size: int
    options: dict[str, Any]


def plan_portraits(settings: DicebearSource, seed: int) -> list[Portrait]:
    """Draw each portrait's gender, options and DiceBear seed.

    Each has a generator of its own, so that a larger count adds portraits and changes none.
    """
    codes = sorted(settings.gender_weights)
    weights = numpy.array([settings.gender_weights[code] for code in codes], dtype=numpy.float64)
    portraits = []
    for number in range(1, settings.count + 1):
        random = numpy_generator(seed, "fetch", "dicebear", number)
        gender = int(random.choice(codes, p=weights / weights.sum()))
        either = FEMALE if random.random() < 0.5 else MALE
        looks = {FEMALE: settings.options.female, MALE: settings.options.male}[gender if gender in (1, 2) else either]
        options = {**settings.options.common, **looks, "seed": f"{random.integers(2**63):016x}"}
        popularity = round(float(random.exponential(5.0)), 3)
        portraits.append(Portrait(number, gender, popularity, settings.style, settings.image_size, options))
    return portraits


def draw_portraits(portraits: list[Portrait]) -> Iterator[bytes]:
    """Draw portraits in their order, as PNG files; the bytes don't depend on the number of processes."""
    with tqdm(total=len(portraits), unit=" portraits", desc="draw") as progress:
        processes = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, MAX_PROCESSES)
        if len(portraits) < POOL_FROM or processes == 1:
            for portrait in portraits:
                yield draw(portrait)
                progress.update()
            return
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that torch's threads may hold
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            for picture in pool.map(draw, portraits, chunksize=25):
                yield picture
                progress.update()


def draw(portrait: Portrait) -> bytes:
    """Draw one portrait as an RGB PNG file, (size, size)."""
    import dicebear
    import resvg_py

    svg = dicebear.Avatar(load_style(portrait.style), portrait.options).to_string()
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=portrait.size, height=portrait.size, skip_system_fonts=True)
    picture = io.BytesIO()
    decode_image(bytes(drawn)).save(picture, format="PNG")
    return picture.getvalue()


@functools.cache
def load_style(name: str) -> Any:
    """The style `name` of the package dicebear-styles, as a dicebear.Style.

    Raises:
        UserError: there is no such style; names similar ones.
    """
    import dicebear

    folder = importlib.resources.files("dicebear_styles")
    names = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
    if name not in names:
        similar = difflib.get_close_matches(name, names, n=3, cutoff=0) or names[:3]
        raise UserError(f"sources.dicebear.style: dicebear-styles has no {name!r}; similar: {', '.join(similar)}")
    return dicebear.Style(json.loads(folder.joinpath(f"{name}.json").read_text("utf-8")))


def check_options(settings: DicebearSource) -> None:
    """Refuse options that DiceBear would reject, and those that it would silently ignore.

    Raises:
        UserError: names the option.
    """
    import dicebear

    style = load_style(settings.style)
    known = dicebear.OptionsDescriptor(style).to_json()
    for section, options in settings.options:
        key = f"sources.dicebear.options.{section}"
        for name, value in options.items():
            check_option(f"{key}.{name}", name, value, known, settings.style)
        try:
            dicebear.Avatar(style, options)
        except dicebear.ValidationError as error:
            raise UserError(f"{key}: DiceBear refuses {error}") from None


def check_option(key: str, name: str, value: Any, known: Mapping[str, Any], style: str) -> None:
    """Refuse an option that the style doesn't have, or a variant that it doesn't have."""
    if name not in known or name == "seed":
        similar = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0)
        raise UserError(f"{key}: the style {style} has no such option; similar: {', '.join(similar)}")
    if name.endswith("Variant"):
        allowed = known[name]["values"]
        unknown = [variant for variant in ([value] if isinstance(value, str) else value) if variant not in allowed]
        if unknown:
            raise UserError(f"{key}: the style {style} has no {unknown[0]}; it has {', '.join(allowed)}")


def style_facts(name: str) -> dict[str, Any]:
    """Origin, creator and licence of a style, as its own file states them."""
    meta = load_style(name).meta()
    return {
        "origin": meta.source().url() or "not stated",
        "creator": meta.creator().name() or "not stated",
        "licence": meta.license().name() or "not stated",
        "licence_url": meta.license().url() or "",
        "licence_note": meta.license().text() or "",
    }
