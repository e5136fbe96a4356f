"""Upload a trained rung to the Hugging Face hub: its folder, its card, the licence of its data and a grid of samples.

python -m diffusion_ladder.publish faces --to NAME/REPOSITORY --dry-run
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_ladder.command_line import known_rung, run
from diffusion_ladder.data.card import NOT_STATED
from diffusion_ladder.foundation.artifacts import read_json
from diffusion_ladder.foundation.errors import UserError
from diffusion_ladder.foundation.section import load_yaml

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
DATA_LICENCE, SAMPLES = "DATA_LICENCE.md", "samples.png"  # beside the model's own files, on the hub
COMMIT = "Trained weights, card and samples"  # the commit's message


@dataclass(frozen=True)
class Upload:
    """What is sent.

    Attributes:
        files: by the path on the hub, a file here or the content itself.
        licence: of the data.
    """

    files: Mapping[str, Path | bytes]
    licence: str

    def lines(self) -> list[str]:
        """A line for each file: its size and its path on the hub."""
        sizes = {
            name: len(data) if isinstance(data, bytes) else data.stat().st_size for name, data in self.files.items()
        }
        return [f"{size:>12,}  {name}" for name, size in sorted(sizes.items())]


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m diffusion_ladder.publish", description=__doc__.splitlines()[0])
    parser.add_argument("rung", type=lambda text: Path(text).name, help="such as faces, rungs/faces or models/faces")
    parser.add_argument("--to", required=True, metavar="NAME/REPOSITORY", help="made where it doesn't exist")
    parser.add_argument("--private", action="store_true", help="a repository that is made is visible to you alone")
    parser.add_argument("--dry-run", action="store_true", help="list what would be sent, and send nothing")
    parser.add_argument("--without-data-licence", action="store_true", help="send though the data state no licence")
    options = parser.parse_args(arguments)
    if not REPOSITORY.fullmatch(options.to):
        parser.error(f"--to must be NAME/REPOSITORY, not {options.to}")
    return options


def upload_of(rung: str, repository: str, root: Path = Path()) -> Upload:
    """What there is to send of a rung.

    Raises:
        UserError: something of it hasn't been built.
    """
    folder = root / "models" / rung
    if not (folder / "rung.json").is_file():
        raise UserError(f"{folder} holds no trained model: `dvc repro train@{rung}` trains it")
    dataset = read_json(folder / "rung.json")["dataset"]
    card, samples = root / "reports/models" / rung / "README.md", root / "reports/figures" / rung / SAMPLES
    data = root / f"reports/data/{dataset}.json"
    for file in (card, samples, data):
        if not file.is_file():
            raise UserError(f"{file} is missing: `dvc repro` writes it")
    facts = read_json(data)
    text = card_on_hub(card.read_text(encoding="utf-8"), rung, repository)
    files: dict[str, Path | bytes] = {
        file.name: file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")
    }
    files |= {
        "LICENSE": root / "LICENSE",
        "README.md": text.encode(),
        DATA_LICENCE: licence_text(facts).encode(),
        SAMPLES: samples,
    }
    return Upload(files, facts.get("licence") or NOT_STATED)


def card_on_hub(card: str, rung: str, repository: str) -> str:
    """The text of a card where it loads the rung from the hub and shows its samples."""
    text = card.replace(
        f'import diffusion_ladder\n\nmodel = diffusion_ladder.load("models/{rung}")',
        "import diffusion_ladder\nfrom huggingface_hub import snapshot_download\n\n"
        f'model = diffusion_ladder.load(snapshot_download("{repository}"))',
    ).replace(f'"models/{rung}"', f'"{repository}"')
    return re.sub(r"(?m)^(# .*\n)", rf"\1\n![Samples, none of them chosen]({SAMPLES})\n", text, count=1)


def licence_text(card: Mapping[str, Any]) -> str:
    """The licence of a data set and who is to be named, from its card."""
    entries = {
        "Title": card.get("title"),
        "Creator": card.get("creator"),
        "Origin": card.get("origin"),
        "Licence": card.get("licence"),
        "Text of the licence": card.get("licence_url"),
        "Note": card.get("licence_note"),
    }
    lines = [f"- {name}: {value}" for name, value in entries.items() if value]
    return "\n".join(["# The data that the model was trained on", "", *lines, ""])


def refuse_unlicensed(upload: Upload, rung: str) -> None:
    """Raise UserError where the data state no licence."""
    if upload.licence == NOT_STATED:
        raise UserError(
            f"{rung} was trained on data without a stated licence, so that nothing says that others may have it; "
            "--without-data-licence sends it all the same"
        )


def send(upload: Upload, repository: str, private: bool) -> str:
    """Make the repository where there is none, and commit all files at once; gives the commit's address.

    Raises:
        UserError: the hub refuses, or can't be reached; nothing was committed then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors  # here, because it takes a while

    api = HfApi()
    operations = [CommitOperationAdd(name, data) for name, data in sorted(upload.files.items())]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return api.create_commit(repository, operations, commit_message=COMMIT).commit_url
    except (errors.HTTPError, OSError, ValueError) as error:
        raise UserError(f"{repository}: {explain(error)}; nothing was committed") from None


def explain(error: Exception) -> str:
    """What an error of the hub's client means, and what to do about it, in one line."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if status == 401 or isinstance(error, errors.LocalTokenNotFoundError):
        return "the hub wants a valid token: log in (`hf auth login`), or set HF_TOKEN"
    if status == 403:
        return f"your token may not write there: take a name of yours, or a token with the right to write ({status})"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it to upload"
    if status is not None:
        return f"the hub answered {status}: run again later"
    if isinstance(error, errors.HTTPError):
        return f"no connection to the hub ({error}): connect to a network"
    return " ".join(str(error).split())


def main() -> None:
    """Send, or list, what the command line names."""
    options = parsed()
    known_rung(options.rung, load_yaml("params.yaml")["rungs"])
    upload = upload_of(options.rung, options.to)
    if not options.without_data_licence:
        refuse_unlicensed(upload, options.rung)
    print(f"{options.rung}, trained on data under {upload.licence}, to {options.to}:", *upload.lines(), sep="\n")
    if options.dry_run:
        print("nothing was sent (--dry-run)")
        return
    print(send(upload, options.to, options.private))


if __name__ == "__main__":
    run(main)
