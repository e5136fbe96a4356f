"""Portraits from a data set on the Hugging Face hub: one parquet file, identified by its SHA-256 and size.

The library datasets would go back to its own cache when almost anything fails, whatever the revision. So the file is
downloaded by its revision with the hub's client, verified here, and only then read by datasets, as a local file.
"""

import glob
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from diffusion_ladder.data.card import raw_card
from diffusion_ladder.data.files import refuse_full_disk
from diffusion_ladder.data.portraits.portrait_table import FILE_NAME, PARQUET_OPTIONS, open_portraits
from diffusion_ladder.foundation.artifacts import replacing, sha256_of_file
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.params.datasets import HubSource

DOWNLOADS = Path("data/downloads")  # may be deleted at any time; no output of DVC, so that a download can be resumed
KEYS = "sources.hub"  # below the data set, which the stage's name tells
GO_ON = "or set source to dicebear (drawn here), parquet or imagefolder (your own)"
# What to say about the errors of the hub's client, by the name of their class, the more special first.
ADVICE = {
    "GatedRepoError": "access is restricted: accept the data set's conditions on the hub and log in (`hf auth login`)",
    "RepositoryNotFoundError": f"there is no such data set, or it is private: check {KEYS}.repository, or log in",
    "RevisionNotFoundError": f"there is no such revision: check {KEYS}.revision",
    "EntryNotFoundError": f"there is no such file: check {KEYS}.file",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set: unset it to download",
}
TOKEN_ADVICE = (
    "the hub wants a valid token (401), since the data set is private or doesn't exist, or your token has expired:"
    f" check {KEYS}.repository, and log in (`hf auth login`) or unset HF_TOKEN"
)
BATCH_ROWS = 100


def fetch_from_hub(settings: HubSource, folder: Path) -> dict[str, Any]:
    """Write the chosen columns of a hub data set's parquet file to FOLDER/portraits.parquet.

    Returns:
        the raw card.

    Raises:
        UserError: the file can't be had, is not the expected one, or lacks a column.
    """
    file = verified_copy(settings)
    target = folder / FILE_NAME
    try:
        rows = select_columns(file, settings.columns, target)
    except OSError as error:
        refuse_full_disk(error, target, settings.size)
        raise UserError(f"{target} can't be written: {' '.join(str(error).split())}") from None
    page = f"https://huggingface.co/datasets/{settings.repository}"
    return raw_card(
        folder,
        [target],
        source="hub",
        title=settings.repository,
        rows=rows,
        synthetic=False,
        origin=page,
        parameters={"revision": settings.revision, "columns": settings.columns},
        published=[
            {
                "name": settings.file,
                "urls": [f"{page}/resolve/{settings.revision}/{settings.file}"],
                "sha256": settings.sha256,
                "size": settings.size,
            }
        ],
        checked="SHA-256 and size of the downloaded file, before its columns were read",
    )


def verified_copy(settings: HubSource) -> Path:
    """A local copy of the file: from an earlier download, from the hub client's cache, or downloaded now.

    Whatever it is, its size and SHA-256 are checked first.
    """
    kept = DOWNLOADS / f"{settings.sha256}.parquet"
    for copy in (kept, cached_by_client(settings)):
        if copy is not None and copy.is_file():
            complaint = compare(copy, settings)
            print(f"{settings.file}: {'not used' if complaint else 'verified'}, {copy}{complaint}", flush=True)
            if not complaint:
                return copy
    download(settings, kept)
    return kept


def cached_by_client(settings: HubSource) -> Path | None:
    """The file in the cache that the hub's client keeps for all projects of the user (HF_HOME), if it is there."""
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(
        settings.repository, settings.file, revision=settings.revision, repo_type="dataset"
    )
    return Path(found) if isinstance(found, str) else None


def compare(path: Path, settings: HubSource) -> str:
    """What distinguishes a file from the expected one; empty if nothing does."""
    if (size := path.stat().st_size) != settings.size:
        return f" has {size:,} bytes, but {KEYS}.size is {settings.size:,}"
    if (digest := sha256_of_file(path)) != settings.sha256:
        return f" has SHA-256 {digest}, but {KEYS}.sha256 is {settings.sha256}"
    return ""


def download(settings: HubSource, target: Path) -> None:
    """Download the file by its revision, with a progress bar; what an interruption left is continued.

    A token is sent only if the user has one (HF_TOKEN or `hf auth login`), and to the hub itself only.

    Raises:
        UserError: it can't be had, or is not the expected one; nothing of the latter is kept.
    """
    from huggingface_hub import errors

    partial = target.with_suffix(".partial")
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    if partial.is_file() and partial.stat().st_size > settings.size:
        partial.unlink()
    try:
        append_rest(settings, partial)
    except (OSError, ValueError, errors.HTTPError) as error:
        if isinstance(error, OSError) and not isinstance(error, errors.HTTPError):
            refuse_full_disk_and_partial(error, partial, settings)
        begun = partial.stat().st_size if partial.is_file() else 0
        resume = (
            f"; {begun:,} of {settings.size:,} bytes are kept, and the next run goes on from there" if begun else ""
        )
        raise UserError(f"{describe(settings)}: {explain(error)}{resume}; {GO_ON}") from None
    if complaint := compare(partial, settings):
        partial.unlink()
        raise UserError(f"{describe(settings)}: the download{complaint}; it was deleted: run again, or correct the key")
    partial.replace(target)


def append_rest(settings: HubSource, partial: Path) -> None:
    """Append to `partial` what it lacks of the file."""
    import huggingface_hub
    from huggingface_hub.file_download import get_hf_file_metadata, http_get
    from huggingface_hub.utils import build_hf_headers, logging

    logging.set_verbosity_error()  # its retries would fill the screen
    url = huggingface_hub.hf_hub_url(
        settings.repository, settings.file, repo_type="dataset", revision=settings.revision
    )
    metadata = get_hf_file_metadata(url)
    if metadata.size not in (None, settings.size):
        raise ValueError(f"the hub has a file of {metadata.size:,} bytes, but {KEYS}.size is {settings.size:,}")
    print(f"{describe(settings)}: commit {metadata.commit_hash or 'unknown'}", flush=True)
    headers = build_hf_headers()
    if urlsplit(metadata.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # files lie on other hosts, which have no business with the token
    with open(partial, "ab") as file:
        http_get(
            metadata.location,
            file,
            resume_size=file.tell(),
            headers=headers,
            expected_size=settings.size,
            displayed_filename=settings.file,
        )
        file.flush()
        os.fsync(file.fileno())


def refuse_full_disk_and_partial(error: OSError, partial: Path, settings: HubSource) -> None:
    """If the disk is full, give back what the download took, and raise UserError."""
    try:
        refuse_full_disk(error, partial, settings.size)
    except UserError:
        partial.unlink(missing_ok=True)
        raise


def describe(settings: HubSource) -> str:
    """The file in words."""
    return f"{settings.repository}/{settings.file} at revision {settings.revision}"


def explain(error: Exception) -> str:
    """What an error of the hub's client means, and what to do about it, in one line."""
    from huggingface_hub import errors

    names = [kind.__name__ for kind in type(error).__mro__]
    known = [advice for name, advice in ADVICE.items() if name in names]
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status == 401 and not isinstance(error, errors.GatedRepoError):
        return TOKEN_ADVICE
    if known:
        return known[0]
    if status is not None:
        return f"the hub answered {status}: run again later"
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, errors.HTTPError):
        return f"no connection to the hub ({reason}): connect to a network and run again"
    return reason


def select_columns(source: Path, columns: list[str], target: Path) -> int:
    """Write the chosen columns of a parquet file to another, read through the library datasets.

    datasets converts the columns to an Arrow file in a temporary folder and maps it into memory: it neither loads the
    whole nor leaves a cache. (Its streaming mode aborts the process now and then: pyarrow's scanner has threads that
    are still running when the interpreter ends.)

    Returns:
        the number of rows.
    """
    import datasets
    import pyarrow.parquet

    check_names(source, columns)
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DOWNLOADS, prefix=".datasets-") as cache:
        try:
            dataset = datasets.load_dataset(
                "parquet",
                data_files=glob.escape(os.path.abspath(source)),  # or brackets in any folder's name were a pattern
                split="train",
                columns=columns,
                batch_size=BATCH_ROWS,
                cache_dir=cache,
            )
        except (datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
            cause = error.__cause__ or error
            if isinstance(cause, OSError):
                raise cause from None
            raise UserError(f"{source}: can't be read as parquet ({' '.join(str(cause).split())})") from None
        batches = dataset.with_format("arrow").iter(BATCH_ROWS)
        schema = dataset.features.arrow_schema
        with (
            replacing(target) as temporary,
            pyarrow.parquet.ParquetWriter(temporary, schema, **PARQUET_OPTIONS) as file,
        ):
            for batch in tqdm(batches, total=-(-len(dataset) // BATCH_ROWS), unit=" batches", desc="columns"):
                file.write_table(batch.cast(schema))
        return len(dataset)


def check_names(source: Path, columns: list[str]) -> None:
    """Raise UserError if a column is missing, or the images aren't images."""
    with open_portraits(source) as table:
        found = table.schema_arrow.names
    if missing := [name for name in columns if name not in found]:
        raise UserError(f"{KEYS}.columns: {source} has no column {missing[0]}, but {', '.join(found)}")
