"""Data cards: where data come from, under which licence, and what became of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_ladder.data.files import describe_file

NOT_STATED = "not stated"


def raw_card(
    folder: Path,
    files: Sequence[Path],
    *,
    source: str,
    title: str,
    rows: int,
    synthetic: bool,
    origin: str,
    creator: str = NOT_STATED,
    licence: str = NOT_STATED,
    licence_url: str = "",
    licence_note: str = "",
    class_names: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
    published: Sequence[dict[str, Any]] = (),
    checked: str = "",
) -> dict[str, Any]:
    """The card of a data set as its source gave it: facts only, and NOT_STATED where the source is silent.

    Args:
        folder: data/raw/DATASET, to which the names of `files` are relative.
        source: the key under `datasets.DATASET.sources`.
        origin: where the data can be found.
        class_names: of the labels, where the source defines them.
        parameters: the settings that shaped or chose the data.
        published: the files as their publisher states them: name, urls, and what identifies the content.
        checked: what the files were compared with.
    """
    return {
        "source": source,
        "title": title,
        "rows": rows,
        "synthetic": synthetic,
        "origin": origin,
        "creator": creator,
        "licence": licence,
        "licence_url": licence_url,
        "licence_note": licence_note,
        "class_names": list(class_names),
        "parameters": parameters or {},
        "published": list(published),
        "checked": checked,
        "files": [describe_file(path, folder) for path in files],
    }
