"""The live page: one self-contained file in which trained networks run, opened from the disk or anywhere else."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import wasmtime
from markupsafe import Markup

from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.params.samplers import ROWS
from diffusion_ladder.play.models import Model, Plan, read_model, too_slow, unsuitable
from diffusion_ladder.play.words import TRIES
from diffusion_ladder.report.rendering import TEMPLATES, environment, read_template, render
from diffusion_ladder.rungs import CARD

HERE = Path(__file__).parent
# In the order in which they need each other; the first list runs in workers, the second in the page.
ENGINE = ("matrix", "weights", "layers", "mlp", "unet", "random", "timesteps", "samplers", "exact", "worker")
CONTROLS = ("crew", "controls", "points", "pictures", "start")
SMALL_BYTES = 3_800_000  # of all networks in the page that is kept in Git: with its code it stays under 4 MB
LARGE_BYTES = 60_000_000  # of all networks in the other one: browsers take some seconds to read more


@dataclass(frozen=True)
class Selection:
    """The rungs, apart: those whose networks a page has or could have, and the others.

    Attributes:
        models: the former.
        left_out: of the latter, each rung's key, its title, and the reason.
    """

    models: Sequence[Model]
    left_out: Sequence[tuple[str, str, str]]


def read_candidates(plans: Mapping[str, Plan], root: Path = Path()) -> Selection:
    """Read the networks of all rungs that a page could run, whatever their size."""
    models, left_out = [], []
    for key, plan in plans.items():
        network = read_json(root / "models" / key / CARD)["network"]["name"]
        reason = unsuitable(network, plan.sampling)
        model = None if reason else read_model(key, plan, root)
        reason = too_slow(model) if model else reason
        if model and not reason:
            models.append(model)
        else:
            left_out.append((key, plan.title, str(reason)))
    return Selection(models, left_out)


def selected(candidates: Selection, most_bytes: int, otherwise: str) -> Selection:
    """The networks that fit, the first rungs first; of each other, `otherwise` says where it is."""
    models, left_out, size = [], [], 0
    for model in candidates.models:
        if size + model.size <= most_bytes:
            models.append(model)
            size += model.size
        else:
            reason = f"its {model.size / 1e6:.1f} MB of weights don't fit into {most_bytes / 1e6:.1f} MB: {otherwise}"
            left_out.append((model.key, model.title, reason))
    return Selection(models, [*left_out, *candidates.left_out])


def kernel() -> bytes:
    """The matrix product of kernel.wat as WebAssembly."""
    return bytes(wasmtime.wat2wasm((HERE / "kernel.wat").read_text(encoding="utf-8")))


def script_of(names: Iterable[str]) -> str:
    """Scripts of this folder, one after the other."""
    return "\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in names)


def build_page(selection: Selection, report: str) -> str:
    """The page as HTML.

    Args:
        selection: the networks that it has.
        report: the address of the report, seen from the page.
    """
    jinja = environment(autoescape=True)
    jinja.loader = jinja2.FileSystemLoader([TEMPLATES, HERE])
    jinja.globals["style"] = Markup(read_template("style.css") + (HERE / "play.css").read_text(encoding="utf-8"))
    models = selection.models
    return render(
        jinja,
        "play.html.j2",
        models=models,
        left_out=selection.left_out,
        samplers=ROWS,
        tries=[each for each in TRIES if each.kind in {model.kind for model in models}],
        report=report,
        settings=Markup(json.dumps({model.key: model.settings for model in models}).replace("<", r"\u003c")),
        kernel=base64.b64encode(kernel()).decode("ascii"),
        engine=Markup(script_of(ENGINE)),
        controls=Markup(script_of(CONTROLS)),
    )
