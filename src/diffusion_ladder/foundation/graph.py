"""Reading dvc.yaml: its stages, their loops, and what each entry of a loop lists."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.section import load_yaml, look_up, look_up_or_none

REFERENCE = re.compile(r"\$\{(.+?)\}")


@dataclass(frozen=True)
class Definition:
    """A stage of dvc.yaml, all entries of its loop together.

    Attributes:
        name: as in dvc.yaml.
        body: what it does; of a loop, what each entry does.
        loop: by key, the entries of its loop; empty for a stage without one.
        looped: whether it has a loop.
    """

    name: str
    body: Mapping[str, Any]
    loop: Mapping[str, Any]
    looped: bool

    def entry(self, key: str) -> dict[str, Any]:
        """What ${key} and ${item} stand for in one entry of the loop.

        Raises:
            UserError: there is no such entry.
        """
        if not self.looped:
            return {}
        if key not in self.loop:
            raise UserError(f"{self.name}: there is no {key!r}; choose one of {', '.join(self.loop)}")
        return {"key": key, "item": self.loop[key]}

    def listed(self, kind: str, key: str = "") -> list[str]:
        """What one entry lists under deps, params, outs, metrics or plots."""
        return [filled_in(name, self.entry(key)) for name in flat(self.body.get(kind, []))]

    def everywhere(self, *kinds: str) -> set[str]:
        """What all entries of the loop list under some kinds."""
        return {name for kind in kinds for key in (self.loop or [""]) for name in self.listed(kind, key)}


def label(stage: str, key: str) -> str:
    """The name that DVC gives a stage, or an entry of its loop: `train@circles`."""
    return f"{stage}@{key}" if key else stage


def flat(entries: list[Any]) -> list[str]:
    """The names in a list of dvc.yaml, whose entries are names, or mappings of one name to options."""
    return [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]


def filled_in(text: str, values: Any) -> str:
    """A text of dvc.yaml with each ${...} replaced by the value that it names."""
    return REFERENCE.sub(lambda match: str(look_up(values, match[1])), text)


def read_graph(parameters: Any, path: str | Path = "dvc.yaml") -> dict[str, Definition]:
    """The stages of dvc.yaml by name.

    Args:
        parameters: params.yaml as parsed, over which loops go.
    """
    return {
        name: Definition(name, stage.get("do", stage), loop_of(stage, parameters), "foreach" in stage)
        for name, stage in load_yaml(path)["stages"].items()
    }


def loop_of(stage: Mapping[str, Any], parameters: Any) -> Mapping[str, Any]:
    """The entries of a stage's loop: a part of the parameters, or a mapping to parts of them.

    An entry whose part isn't there is left out: `make graph` rewrites the loop without it.
    """
    loop = stage.get("foreach", {})
    if isinstance(loop, str):
        return referred(loop, parameters) or {}
    entries = {key: referred(value, parameters) for key, value in loop.items()}
    return {key: entry for key, entry in entries.items() if entry is not None}


def referred(text: str, parameters: Any) -> Any:
    """The part of the parameters that a text such as ${rungs} names; None where there is none."""
    match = REFERENCE.fullmatch(text)
    return look_up_or_none(parameters, match[1]) if match else text
