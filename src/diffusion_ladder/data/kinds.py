"""Data sets: a module for each kind, which `datasets.DATASET.kind` names."""

import importlib
from typing import Any


def kind_of_data(name: str) -> Any:
    """The module of a kind of data, imported only now.

    It has SOURCES (the settings of each source, by name), PREPROCESS (the settings of its preprocessing), and the
    functions fetch, kept_rows and preprocess.
    """
    return importlib.import_module(f"diffusion_ladder.data.{name}.dataset")
