"""Draw one rung's figures, from its artifacts alone: no network is run."""

from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from diffusion_ladder.data.normalise import Normalisation
from diffusion_ladder.evaluation.findings import read_findings
from diffusion_ladder.figures import evaluation, memorisation, process, samples, training
from diffusion_ladder.figures.canvas import house_style, missing_letters
from diffusion_ladder.figures.exhibit import RungArtifacts
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import read_json, read_metadata, read_tensors, write_bytes, write_json
from diffusion_ladder.foundation.runtime import Stage, run_stage
from diffusion_ladder.params.figures import Figures
from diffusion_ladder.params.schedule import Schedule
from diffusion_ladder.randomness import generator


def first_samples(path: str) -> Tensor:
    """The samples of sampling seed 0 in a file of samples."""
    drawn = read_tensors(path)
    return drawn["samples"][drawn["sampling_seed"] == 0]


def read_artifacts(model: str, dataset: str) -> RungArtifacts:
    """What earlier stages wrote about a rung."""
    rung, drawn = read_json(f"models/{model}/rung.json"), f"data/samples/{model}"
    metadata = read_metadata(f"data/processed/{dataset}.safetensors")
    return RungArtifacts(
        rung=rung,
        normalisation=Normalisation.from_metadata(metadata),
        class_names=metadata["class_names"],
        data=read_tensors(f"data/processed/{dataset}.safetensors"),
        synthetic=read_json(f"reports/data/{dataset}.json")["synthetic"],
        samples=first_samples(f"{drawn}.safetensors"),
        sampler=read_metadata(f"{drawn}.safetensors"),
        comparison=first_samples(f"{drawn}.comparison.safetensors"),
        comparison_sampler=read_metadata(f"{drawn}.comparison.safetensors"),
        trajectories=read_tensors(f"{drawn}.trajectories.safetensors"),
        training_log=training.parse_log(Path(f"reports/training/{model}.tsv").read_text(encoding="utf-8")),
        previews=read_tensors(f"{drawn}.previews.safetensors"),
    )


def main(stage: Stage) -> None:
    """Write the figures, then captions.json, which lists them in the order of reading."""
    artifacts = read_artifacts(stage.key, stage.parameter(f"rungs.{stage.key}.dataset", str))
    if complaint := missing_letters(artifacts.classes):
        print(f"{stage.label}: {complaint}", flush=True)
    findings = read_findings(stage.key)
    settings = stage.section("figures", Figures)
    schedule = forward_process(Schedule.model_validate(artifacts.rung["schedule"]))
    noise = generator(stage.parameter("seed", int), "render", stage.key, "forward")
    folder, captions = f"reports/figures/{stage.key}", []
    with house_style(), tqdm(desc=stage.label, unit=" figures") as progress:
        for exhibits in (
            training.exhibits(artifacts, schedule),
            process.exhibits(artifacts, schedule, settings, noise),
            samples.exhibits(artifacts, settings),
            evaluation.exhibits(findings),
            memorisation.exhibits(findings),
        ):
            for exhibit in exhibits:
                for file, content in exhibit.files().items():
                    write_bytes(f"{folder}/{file}", content)
                captions.append(exhibit.entry())
                progress.update()
    write_json(f"{folder}/captions.json", captions)


if __name__ == "__main__":
    run_stage(main)
