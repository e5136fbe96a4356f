"""Where everything comes from: hashes of code, parameters, data and weights, seeds by purpose, versions, circumstances.

No clock and no machine: equal contents give an equal page. The hashes are those that DVC writes into dvc.lock.
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffusion_ladder.foundation.artifacts import canonical_json, read_json
from diffusion_ladder.foundation.hashes import md5_of_output
from diffusion_ladder.params.whole import Parameters
from diffusion_ladder.report.stage_graph import Stage, read_stages

CODE = ("src/diffusion_ladder", "stages")
SHOWN = (  # of the lock, what computes or makes data
    *("torch", "torchvision", "diffusers", "accelerate", "numpy", "scipy", "scikit-learn", "safetensors", "POT"),
    *("mlxtend", "dicebear-core", "dicebear-styles", "resvg-py", "Pillow", "pyarrow", "datasets", "matplotlib", "dvc"),
)
GENERATORS = ("generator", "numpy_generator", "seed_of")


@dataclass(frozen=True)
class Hash:
    """A content hash.

    Attributes:
        what: code, data, or weights.
        path: in the project.
        md5: as dvc.lock has it.
    """

    what: str
    path: str
    md5: str


@dataclass(frozen=True)
class Purpose:
    """What a random generator is for: the parts that its seed is derived from besides the root seed."""

    parts: str
    path: str


@dataclass(frozen=True)
class Provenance:
    """All of it; what can't be read is left out.

    Attributes:
        parameters_sha256: of the parameters' values as canonical JSON.
        computed_with: what the networks were trained with, by rung; the same words for several rungs stand once.
        versions: package and version, of the lock.
    """

    hashes: list[Hash]
    parameters_sha256: str
    seed: int
    purposes: list[Purpose]
    versions: list[tuple[str, str]]
    computed_with: dict[str, list[str]]
    stages: list[Stage]


def provenance_of(root: Path, parameters: Parameters) -> Provenance:
    """Read it from a project's folder."""
    values = canonical_json(parameters.model_dump(mode="json", exclude_unset=True))
    return Provenance(
        hashes=list(hashes_of(root, parameters)),
        parameters_sha256=hashlib.sha256(values.encode("utf-8")).hexdigest(),
        seed=parameters.seed,
        purposes=[purpose for folder in CODE for purpose in purposes_in(root, folder)],
        versions=versions_in(root / "requirements.txt"),
        computed_with=circumstances_of(root, parameters),
        stages=read_stages(root),
    )


def hashes_of(root: Path, parameters: Parameters) -> Iterator[Hash]:
    """The hash of everything that is there."""
    datasets = dict.fromkeys(model.dataset for model in parameters.rungs.values())
    paths = {
        "code": CODE,
        "data": [f"data/processed/{name}.safetensors" for name in datasets],
        "weights": [
            *(f"models/{name}" for name in parameters.rungs),
            *(f"data/judges/{name}/classifier" for name in parameters.classifiers),
        ],
    }
    for what, places in paths.items():
        for path in places:
            if (root / path).exists():
                yield Hash(what, path, md5_of_output(path, root))


def purposes_in(root: Path, folder: str) -> Iterator[Purpose]:
    """The purposes for which a folder's files derive generators from the root seed, as they stand in the code."""
    for file in sorted((root / folder).rglob("*.py")):
        found = []
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in GENERATORS
            if named and len(node.args) > 1 and not isinstance(node.args[1], ast.Starred):  # type: ignore[attr-defined]
                parts = [ast.unparse(part).strip("'") for part in node.args[1:]]  # type: ignore[attr-defined]
                found.append((node.lineno, " / ".join(parts)))  # type: ignore[attr-defined]
        yield from (Purpose(parts, file.relative_to(root).as_posix()) for _, parts in sorted(found))


def versions_in(lock: Path) -> list[tuple[str, str]]:
    """The versions of the packages that matter, from requirements.txt."""
    if not lock.is_file():
        return []
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE))
    by_name = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    return [(name, by_name[name.lower()]) for name in SHOWN if name.lower() in by_name]


def circumstances_of(root: Path, parameters: Parameters) -> dict[str, list[str]]:
    """Device, precision and threads of each rung's training, and the titles of the rungs that they hold for."""
    found: dict[str, list[str]] = {}
    for key, model in parameters.rungs.items():
        path = root / "models" / key / "rung.json"
        facts = read_json(path).get("computed_with") if path.is_file() else None
        if facts:
            words = f"{facts['device']}, {facts['precision']}, {facts['threads']} threads"
            found.setdefault(words, []).append(model.title)
    return found
