"""The heart of the code: functions cut out of the sources when the report is built, their docstrings shortened."""

import ast
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from diffusion_ladder.params.rung import RungParameters
from diffusion_ladder.params.samplers import ROWS, Sampler, is_library
from diffusion_ladder.params.sampling import Sampling

PACKAGE = Path(__file__).resolve().parents[1]
SHOWN_ROOT = "src/diffusion_ladder"  # how the package's folder is called in the repository


@dataclass(frozen=True)
class Excerpt:
    """A function worth reading.

    Attributes:
        key: names it in links.
        title: what it does, in a few words.
        file: below the package.
        name: of the function; CLASS.FUNCTION for a method.
        used_by: whether a rung with these settings uses it.
    """

    key: str
    title: str
    file: str
    name: str
    used_by: Callable[[RungParameters, Sampling], bool]

    @property
    def path(self) -> str:
        """The file as the repository names it."""
        return f"{SHOWN_ROOT}/{self.file}"


def always(model: RungParameters, sampling: Sampling) -> bool:
    """Every rung."""
    return True


def uses_own(name: str) -> Callable[[RungParameters, Sampling], bool]:
    """Rungs that draw samples with the sampler of that name that is written here."""
    return lambda model, sampling: name in (sampling.sampler, model.schedulers.comparison)


def has_network(name: str) -> Callable[[RungParameters, Sampling], bool]:
    """Rungs with that network."""
    return lambda model, sampling: model.network.name == name


def has_loss_weight(name: str) -> Callable[[RungParameters, Sampling], bool]:
    """Rungs whose loss is weighted so."""
    return lambda model, sampling: model.training.loss_weight is not None and model.training.loss_weight.name == name


def step_of(sampler: Sampler) -> Excerpt:
    """The step of a sampler that is written here."""
    title, file = f"One step of {sampler.title}", f"schedulers/{sampler.name}.py"
    return Excerpt(sampler.step_function, title, file, sampler.step_function, uses_own(sampler.name))


IDEAL_DENOISER = Excerpt(
    "data_set_x0",
    "What the ideal denoiser expects",
    "diffusion/exact.py",
    "data_set_x0",
    lambda model, sampling: False,  # it takes the place of a rung's network
)
EXCERPTS = (
    IDEAL_DENOISER,
    Excerpt(
        "add_noise",
        "Noise is added",
        "diffusion/schedules.py",
        "add_noise",
        lambda model, sampling: not is_library(model.schedulers.training),
    ),
    Excerpt(
        "min_snr_weight",
        "The error is weighted",
        "diffusion/targets.py",
        "min_snr_weight",
        has_loss_weight("min_snr"),
    ),
    Excerpt("p2_weight", "The error is weighted", "diffusion/targets.py", "p2_weight", has_loss_weight("p2")),
    Excerpt("draw_batch", "A batch is drawn", "training/loop.py", "draw_batch", always),
    Excerpt("losses_of", "The loss is computed", "training/loop.py", "losses_of", always),
    Excerpt("reverse_process", "Samples are drawn", "sampling/loop.py", "reverse_process", always),
    *(step_of(sampler) for sampler in ROWS),
    Excerpt("mlp", "Through the MLP", "networks/mlp.py", "MLP.forward", has_network("mlp")),
    Excerpt("unet", "Through the U-Net", "networks/unet.py", "UNet.forward", has_network("unet")),
    Excerpt(
        "diffusers_unet", "The library's U-Net", "networks/diffusers_unet.py", "build", has_network("diffusers_unet")
    ),
    Excerpt(
        "guided",
        "The class is asked for",
        "sampling/guidance.py",
        "guided",
        lambda model, sampling: model.training.label_dropout > 0,
    ),
)


def excerpts_of(model: RungParameters, sampling: Sampling) -> list[Excerpt]:
    """The functions that a rung runs through, in the order of the process."""
    return [excerpt for excerpt in EXCERPTS if excerpt.used_by(model, sampling)]


def source_of(excerpt: Excerpt) -> str:
    """The function as it stands in its file, with the first line of its docstring only."""
    text = (PACKAGE / excerpt.file).read_text(encoding="utf-8")
    return function_source(text, excerpt.name, excerpt.path)


def function_source(text: str, name: str, path: str) -> str:
    """Cut a function out of a module's text, without indentation.

    Raises:
        LookupError: the module has no such function.
    """
    node = find_function(ast.parse(text), name.split("."))
    if node is None:
        raise LookupError(f"{path} has no {name}: report/excerpts.py names a function that is gone")
    lines = text.splitlines()
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    docstring = node.body[0]
    if ast.get_docstring(node) is None or docstring.lineno == docstring.end_lineno:
        kept = lines[start : node.end_lineno]
    else:
        summary = lines[docstring.lineno - 1].rstrip() + '"""'
        kept = [*lines[start : docstring.lineno - 1], summary, *lines[docstring.end_lineno : node.end_lineno]]
    return textwrap.dedent("\n".join(kept)) + "\n"


def find_function(module: ast.Module, parts: list[str]) -> ast.FunctionDef | None:
    """The function of a module, or of a class in it, that a dotted name means."""
    body: list[ast.stmt] = module.body
    found: ast.stmt | None = None
    for part in parts:
        found = next((node for node in body if getattr(node, "name", None) == part), None)
        body = getattr(found, "body", [])
    return found if isinstance(found, ast.FunctionDef) else None


def highlighted(source: str) -> Markup:
    """Python source as HTML, each token in a <span> with Pygments' short class name."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))
