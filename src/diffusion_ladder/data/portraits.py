"""Portraits with a gender: drawn, from the hub, or from a local parquet file; and how they become square images."""

import io
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_ladder.artifacts import sha256_of_file, write_bytes
from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.decoding import decode_image, to_square, to_tensor
from diffusion_ladder.data.drawn_portraits import Portrait, check_options, draw_portraits, plan_portraits, style_facts
from diffusion_ladder.data.files import copy_file
from diffusion_ladder.data.normalise import IMAGES
from diffusion_ladder.data.portrait_table import FILE_NAME, PARQUET_OPTIONS, filtered_rows, open_portraits
from diffusion_ladder.data.split import Splits, is_held_out
from diffusion_ladder.errors import UserError
from diffusion_ladder.params import DicebearSource, HubSource, ParquetSource, PortraitsPreprocess

# The columns of ashraq/tmdb-celeb-10k, with the names that the library datasets gives their types.
COLUMNS = {
    "adult": "bool",
    "also_known_as": "string",
    "biography": "string",
    "birthday": "string",
    "deathday": "string",
    "gender": "int64",
    "homepage": "string",
    "id": "int64",
    "imdb_id": "string",
    "known_for_department": "string",
    "name": "string",
    "place_of_birth": "string",
    "popularity": "float64",
    "profile_path": "string",
    "image": "Image",
}
ROW_GROUP_ROWS = 500
# What to say about the hub library's errors, by the name of their class.
HUB_ERRORS = {
    "LocalEntryNotFoundError": "the hub can't be reached, and the file is not in its cache: connect to a network",
    "GatedRepoError": "access is restricted: accept the data set's conditions on the hub and log in (`hf auth login`)",
    "RepositoryNotFoundError": "there is no such data set, or it is private: check sources.hub.repository or log in",
    "RevisionNotFoundError": "there is no such revision: check sources.hub.revision",
    "EntryNotFoundError": "there is no such file: check sources.hub.file",
}
GO_ON = "or set datasets.faces.source to dicebear (drawn here) or parquet (a file that you have)"


def fetch(source: str, settings: DicebearSource | HubSource | ParquetSource, seed: int, folder: Path) -> dict[str, Any]:
    """Write FOLDER/portraits.parquet: drawn (dicebear), downloaded and verified (hub), or copied (parquet).

    Returns:
        the raw card.

    Raises:
        UserError: the source can't be had, or is not what it should be.
    """
    if isinstance(settings, DicebearSource):
        return fetch_drawn(settings, seed, folder)
    if isinstance(settings, HubSource):
        return fetch_from_hub(settings, folder)
    return fetch_local(settings, folder)


def fetch_drawn(settings: DicebearSource, seed: int, folder: Path) -> dict[str, Any]:
    """Draw the portraits, into the same columns as ashraq/tmdb-celeb-10k has."""
    check_options(settings)
    portraits = plan_portraits(settings, seed)
    path = folder / FILE_NAME
    write_bytes(path, portraits_as_parquet(portraits, list(draw_portraits(portraits))))
    return raw_card(
        folder,
        [path],
        source="dicebear",
        title=f"Portraits drawn with DiceBear, style {settings.style}",
        rows=len(portraits),
        synthetic=True,
        parameters=settings.model_dump(mode="json"),
        **style_facts(settings.style),
    )


def portraits_as_parquet(portraits: list[Portrait], pictures: list[bytes]) -> bytes:
    """The table of drawn portraits as a parquet file: the same rows give the same bytes."""
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    types = {name: image if kind == "Image" else pyarrow.type_for_alias(kind) for name, kind in COLUMNS.items()}
    features = {
        name: {"_type": "Image"} if kind == "Image" else {"dtype": kind, "_type": "Value"}
        for name, kind in COLUMNS.items()
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}  # so that datasets shows images as images
    rows = [portrait_row(portrait, picture) for portrait, picture in zip(portraits, pictures, strict=True)]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(types.items(), metadata=metadata))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=ROW_GROUP_ROWS, **PARQUET_OPTIONS)
    return buffer.getvalue()


def portrait_row(portrait: Portrait, picture: bytes) -> dict[str, Any]:
    """One row; what a drawn portrait has no value for is left out, and becomes null."""
    return {
        "adult": False,
        "also_known_as": "[]",
        "gender": portrait.gender,
        "id": portrait.number,
        "known_for_department": "Drawing",
        "name": f"Portrait {portrait.number:05d}",
        "popularity": portrait.popularity,
        "image": {"bytes": picture, "path": f"portrait_{portrait.number:05d}.png"},
    }


def fetch_from_hub(settings: HubSource, folder: Path) -> dict[str, Any]:
    """Download a file of a hub data set by its revision, and verify its size and SHA-256."""
    downloaded = download_from_hub(settings)
    name = f"{settings.repository}/{settings.file}"
    size, digest = downloaded.stat().st_size, sha256_of_file(downloaded)
    if size != settings.size:
        raise UserError(f"{name} has {size} bytes, but sources.hub.size is {settings.size}")
    if digest != settings.sha256:
        raise UserError(f"{name} has SHA-256 {digest}, but sources.hub.sha256 is {settings.sha256}")
    origin = f"https://huggingface.co/datasets/{settings.repository}/blob/{settings.revision}/{settings.file}"
    return adopt(downloaded, folder, source="hub", title=settings.repository, origin=origin)


def download_from_hub(settings: HubSource) -> Path:
    """The file in the hub library's cache, downloaded if it isn't there.

    Raises:
        UserError: no network, no such repository, revision or file, or no right to read it.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # its retries would fill the screen
    name, revision = settings.file, settings.revision
    print(f"{settings.repository}/{name}: from the hub, or from its cache", flush=True)
    try:
        return Path(huggingface_hub.hf_hub_download(settings.repository, name, revision=revision, repo_type="dataset"))
    except (OSError, ValueError, RuntimeError, errors.HTTPError, errors.XetDownloadError) as error:
        known = [HUB_ERRORS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in HUB_ERRORS]
        reason = known[0] if known else " ".join(str(error).split())
    raise UserError(f"{settings.repository}/{name} at revision {revision}: {reason}; {GO_ON}")


def fetch_local(settings: ParquetSource, folder: Path) -> dict[str, Any]:
    """Copy a parquet file that the user has."""
    if settings.path is None:
        raise UserError("datasets.faces.sources.parquet.path: name a parquet file with the columns image and gender")
    path = Path(settings.path)
    if not path.is_file():
        raise UserError(f"datasets.faces.sources.parquet.path: there is no file {path}")
    return adopt(path, folder, source="parquet", title=path.stem, origin=f"a local file, {path.name}")


def adopt(path: Path, folder: Path, **facts: Any) -> dict[str, Any]:
    """Check the columns of somebody's parquet file and copy it as it is."""
    with open_portraits(path) as table:
        rows = table.metadata.num_rows
    target = folder / FILE_NAME
    copy_file(path, target)
    return raw_card(folder, [target], rows=rows, synthetic=False, **facts)


def preprocess(folder: Path, settings: PortraitsPreprocess) -> Splits:
    """Decode, crop to a square, resize, and split by the pixels' hash.

    Args:
        folder: what filter_gender wrote: a parquet file with the columns image and label.

    Returns:
        train and test as uint8 (N, 3, image_size, image_size); the facts describe the pictures before.
    """
    images, labels, sizes = [], [], []
    for data, label in filtered_rows(folder / FILE_NAME):
        picture = decode_image(data)
        sizes.append(picture.size)
        images.append(to_tensor(to_square(picture, settings.image_size, settings.crop)))
        labels.append(label)
    return split_images(torch.stack(images), torch.tensor(labels), sizes, settings)


def split_images(images: Tensor, labels: Tensor, sizes: list[tuple[int, int]], settings: PortraitsPreprocess) -> Splits:
    """Split uint8 (N, 3, image_size, image_size) images; `sizes` are the pictures' (width, height) before."""
    held_out = is_held_out(images, settings.test_fraction)
    return Splits(
        train=images[~held_out],
        test=images[held_out],
        train_labels=labels[~held_out],
        test_labels=labels[held_out],
        class_names=settings.class_names,
        normalisation=IMAGES,
        facts={"pictures": describe_sizes(sizes, settings)},
    )


def describe_sizes(sizes: list[tuple[int, int]], settings: PortraitsPreprocess) -> dict[str, Any]:
    """What was done to the pictures: their (width, height) before, and how many were cropped, shrunk or enlarged."""
    sides = [min(size) for size in sizes]
    return {
        "smallest": list(min(sizes, key=math.prod)),
        "largest": list(max(sizes, key=math.prod)),
        "cropped": sum(width != height for width, height in sizes),
        "crop": settings.crop,
        "shrunk": sum(side > settings.image_size for side in sides),
        "enlarged": sum(side < settings.image_size for side in sides),
        "image_size": settings.image_size,
    }
