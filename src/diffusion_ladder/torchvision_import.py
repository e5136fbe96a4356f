"""Makes `import torchvision` work where its compiled operators can't load.

torchvision's wheel on the package index is built for CUDA. Beside a CPU build of torch its compiled library does not
load, and `import torchvision` fails with "operator torchvision::nms does not exist" where it registers a shape rule for
that operator. Only torchvision's pure-Python parts are needed here (and by diffusers), so the operators are declared,
without an implementation, and the import is repeated. Where torch and torchvision match, the first import works and
nothing is done.
"""

import importlib

import torch

# The operators whose shape rules torchvision registers without asking whether they exist.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # the declarations live as long as this object


def repair_torchvision() -> None:
    """Import torchvision, declaring the operators that it misses; call before anything else imports it."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared:
            raise
        library = torch.library.Library("torchvision", "DEF")
        for schema in OPERATORS:
            library.define(schema)
        _declared.append(library)
        importlib.import_module("torchvision")
