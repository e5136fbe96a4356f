"""params.yaml is valid, fully commented, and impossible values are refused in one line that names the key."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, run

from diffusion_ladder.errors import ParameterError
from diffusion_ladder.overlays import flatten
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.section import UniqueKeyLoader, load_yaml, look_up
from diffusion_ladder.params.whole import load_parameters, validate
from diffusion_ladder.presets import merged_parameters, overrides

IMPOSSIBLE = [
    ("unknown", 1, "unknown: unknown key"),
    ("models.circles.network.hidden", 3, "models.circles.network.hidden: unknown key"),
    ("models.circles.schedule.T", 0, "models.circles.schedule.T"),
    ("models.circles.schedule.T", 2.5, "models.circles.schedule.T"),
    ("models.circles.schedule.T", "1000", "models.circles.schedule.T"),
    ("models.circles.schedule.beta_end", 1e-5, "beta_end = 1e-05 is below beta_start"),
    ("models.circles.schedule.beta_start", 0, "models.circles.schedule.beta_start"),
    ("models.circles.schedule.name", "quadratic", "models.circles.schedule.name"),
    ("models.circles.schedulers.sampling", "dpm", "models.circles.schedulers.sampling"),
    ("models.circles.schedulers.sampling", "ddpm", "choose two samplers"),
    ("models.circles.dataset", "squares", "models.circles.dataset: no data set is called squares"),
    ("models.circles.network.name", "unet", "models.circles.network"),
    ("models.circles.network.name", "transformer", "models.circles.network"),
    ("models.mnist_scratch.network.block_out_channels", [30, 60], "30 is no multiple of norm_groups = 8"),
    ("models.mnist_scratch.network.attention_levels", [True], "one entry per level"),
    ("models.circles.training.learning_rate", -1.0, "models.circles.training.learning_rate"),
    ("models.circles.training.label_dropout", 0.1, "circles has no labels to drop"),
    ("models.faces.training.label_dropout", 1.0, "models.faces.training.label_dropout"),
    ("sampling.faces.steps", 1001, "sampling.faces.steps: 1001 is more than T = 1000"),
    ("sampling.faces.steps", 0, "sampling.faces.steps"),
    ("sampling.faces.seeds", 1, "sampling.faces.seeds"),
    ("sweep.faces.count", 33, "sweep.faces.count: 33 is no multiple of 2 classes"),
    ("sweep.faces.samplers", ["ddim", "ddim"], "samplers: ['ddim', 'ddim'] holds a value twice"),
    ("sweep.faces.samplers", ["diffusers_ddim"], "sweep.faces.samplers"),
    ("sweep.faces.evaluations", [10, 1001], "sweep.faces.evaluations: 1001 is more than T = 1000"),
    ("sweep.circles.guidance_scales", [2.0], "sweep.circles.guidance_scales: needs a null label"),
    ("models.faces.schedulers.sweep.ddim", "diffusers_ddpm", "models.faces.schedulers.sweep.ddim"),
    ("sampling.faces.count", 33, "33 is no multiple of 2 classes"),
    ("evaluation.circles.smaller_counts", [500, 250], "smaller_counts: must rise"),
    ("evaluation.circles.smaller_counts", [2000], "and stay below sample_count = 2000"),
    ("evaluation.faces.neighbours", 256, "neighbours: 256 is not below sample_count = 256"),
    ("evaluation.faces.inception", {"path": "a.pth", "sha256": "12"}, "evaluation.faces.inception.sha256"),
    ("evaluation.faces.kind", "points", "evaluation.faces.projections"),
    ("sampling.circles.guidance_scale", 2.0, "sampling.circles.guidance_scale: needs a null label"),
    ("datasets.mnist.source", "kaggle", "datasets.mnist.source"),
    ("datasets.circles.source", "make_moons", "the source make_moons is not described"),
    ("datasets.faces.labels", {1: 0, 2: 2}, "labels maps to the classes [0, 2]"),
    ("datasets.faces.labels", {1: 0, 2: 1, 3: 2}, "labels maps to the classes [0, 1, 2], but preprocess.class_names"),
    ("datasets.faces.labels", {True: 0, 2: 1}, "datasets.faces.labels"),
    ("datasets.faces.preprocess.class_names", ["all"], "datasets.faces.preprocess.class_names"),
    ("datasets.faces.preprocess.class_names", ["one", "one"], "preprocess.class_names: a name stands twice"),
    ("datasets.faces.preprocess.channels", 4, "datasets.faces.preprocess.channels"),
    ("datasets.faces.preprocess.crop", "bottom", "datasets.faces.preprocess.crop"),
    ("models.faces.training.class_weights", [1.0, 1.0, 1.0], "class_weights: 3 weights for faces, which has 2 classes"),
    ("models.faces.training.class_weights", [1.0, 0.0], "models.faces.training.class_weights"),
    ("models.circles.training.class_weights", [1.0, 1.0], "for circles, which has no classes to weigh"),
    ("datasets.faces.source", "imagefolder", "label_column: images from folders have the label in the column folder"),
    ("datasets.faces.sources.parquet.sha256", "abc", "datasets.faces.sources.parquet.sha256"),
    ("datasets.faces.max_unusable_share", 1.5, "datasets.faces.max_unusable_share"),
    ("datasets.faces.preprocess.test_fraction", 1.0, "datasets.faces.preprocess.test_fraction"),
    ("datasets.faces.sources.dicebear.gender_weights", {0: 1, 1: 0, 2: 0, 3: 1}, "gender_weights"),
    ("runtime.device", "tpu", "runtime.device"),
    ("models.circles.schedulers.training", "heun", "models.circles.schedulers.training"),
    ("models.circles.training.loss_weight.name", "min_snr_gamma", "models.circles.training.loss_weight.name"),
    ("models.circles.training.loss_weight.gamma", 0.0, "models.circles.training.loss_weight.gamma"),
    ("sampling.mnist_scratch.variance_type", "learned", "sampling.mnist_scratch.variance_type"),
    ("sampling.mnist_scratch.thresholding", True, "clip_sample and thresholding are both true"),
    ("sampling.mnist_scratch.sample_max_value", 0.5, "sampling.mnist_scratch.sample_max_value"),
    ("sampling.faces.guidance_interval", [0.7, 0.2], "[0.7, 0.2] ends before it begins"),
    ("sampling.faces.guidance_interval", [0.2], "sampling.faces.guidance_interval"),
    ("seed", -1, "seed"),
]


def write_changed(path, key, value):
    values = copy.deepcopy(load_yaml("params.yaml"))
    *parents, last = key.split(".")
    look_up(values, ".".join(parents))[last] = value
    path.write_text(yaml.safe_dump(values))


@pytest.mark.parametrize(("key", "value", "complaint"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_in_one_line_that_names_it(key, value, complaint, tmp_path):
    path = tmp_path / "params.yaml"
    if "." in key:
        write_changed(path, key, value)
    else:
        path.write_text(yaml.safe_dump(load_yaml("params.yaml") | {key: value}))
    with pytest.raises(ParameterError) as refusal:
        load_parameters(path)
    message = str(refusal.value)
    assert complaint in message
    assert "\n" not in message
    assert len(message) < 300


INCONSISTENT = [
    (
        "datasets.faces.source",
        "parquet",
        "datasets.faces.sources.parquet.path: name what the source parquet is",
    ),
    ("models.circles.judge", "data/raw/moons", "data/raw/moons can't judge circles, but data/raw/circles can"),
    ("models.faces.judge", "models/classifiers/mnist", "can't judge faces, but models/classifiers/faces can"),
    ("models.mnist_scratch.network.patch_size", 4, "divide the size by 8, which does not divide the 28 pixels"),
    ("datasets.faces.preprocess.image_size", 50, "divide the size by 8, which does not divide the 50 pixels of faces"),
    ("sampling.circles.count", 500, "evaluation.circles.sample_count: 2000 is more than sampling.circles.count = 500"),
    (
        "evaluation.circles",
        load_yaml("params.yaml")["evaluation"]["faces"],
        "evaluation.circles.kind: images, but circles are",
    ),
    ("classifiers.mnist.dataset", "moons", "classifiers.mnist.dataset: moons are points"),
    ("models.circles.schedule.rescale_betas_zero_snr", True, "epsilon-prediction is undefined at zero terminal SNR"),
    ("sampling.circles.clip_sample", True, "sampling.circles.clip_sample: true would cut off circles"),
    ("sampling.moons.thresholding", True, "sampling.moons.thresholding: true would cut off moons"),
    ("models.circles.training.flip", True, "models.circles.training.flip: circles are points, which have no mirror"),
    ("models.faces.training.pairing", "optimal_transport", "optimal_transport is for points, which faces are not"),
    ("models.circles.training.pairing", "optimal_transport", "models.circles.schedulers.comparison: ddpm adds noise"),
]


@pytest.mark.parametrize(("key", "value", "complaint"), INCONSISTENT)
def test_parts_that_do_not_fit_each_other_are_refused_in_one_line(key, value, complaint, tmp_path):
    check_consistency(load_parameters())
    write_changed(tmp_path / "params.yaml", key, value)
    with pytest.raises(ParameterError) as refusal:
        check_consistency(load_parameters(tmp_path / "params.yaml"))
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_samplers_are_held_against_the_schedule_and_the_clipping(tmp_path):
    values = load_yaml("params.yaml")
    model, sampling = values["models"]["mnist_scratch"], values["sampling"]["mnist_scratch"]
    model["schedulers"]["comparison"] = "diffusers_heun"
    check_consistency(validate(values, "params.yaml"))
    sampling |= {"clip_sample": False, "thresholding": True}
    with pytest.raises(ParameterError, match="thresholding: diffusers_heun knows clip_sample"):
        check_consistency(validate(values, "params.yaml"))
    sampling |= {"clip_sample": True, "thresholding": False}
    model["schedule"] |= {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    values["sweep"]["mnist_scratch"]["samplers"] = ["ddim", "dpm_solver"]
    with pytest.raises(ParameterError, match="comparison: heun starts at sigma"):
        check_consistency(validate(values, "params.yaml"))
    model["schedulers"]["comparison"] = "dpm_solver"
    check_consistency(validate(values, "params.yaml"))
    values["sweep"]["mnist_scratch"]["samplers"] = ["heun"]
    with pytest.raises(
        ParameterError, match=r"sweep\.mnist_scratch\.samplers: heun can't be compared with an infinite"
    ):
        check_consistency(validate(values, "params.yaml"))
    values["sweep"]["mnist_scratch"] |= {"samplers": ["dpm_solver"], "evaluations": [1000]}
    check_consistency(validate(values, "params.yaml"))
    sampling["spacing"] = "linspace"
    model["schedule"]["rescale_betas_zero_snr"] = False
    sampling["comparison_steps"] = "all"
    with pytest.raises(ParameterError, match="comparison_steps: with linspace spacing dpm_solver leaves the last"):
        check_consistency(validate(values, "params.yaml"))
    sampling["comparison_steps"] = 999
    with pytest.raises(ParameterError, match="with linspace spacing dpm_solver takes at most 999 steps"):
        check_consistency(validate(values, "params.yaml"))


def test_optimal_transport_is_accepted_with_samplers_that_add_no_noise():
    values = load_yaml("params.yaml")
    values["models"]["circles"]["training"]["pairing"] = "optimal_transport"
    values["models"]["circles"]["schedulers"] |= {"sampling": "ddim", "comparison": "heun"}
    check_consistency(validate(values, "params.yaml"))
    values["sampling"]["circles"]["eta"] = 0.5
    with pytest.raises(ParameterError, match=r"schedulers\.sampling: ddim adds noise \(eta = 0\.5\)"):
        check_consistency(validate(values, "params.yaml"))


@pytest.mark.parametrize("model", ["mnist_scratch", "mnist_diffusers"])
def test_our_unet_and_the_librarys_are_exchanged_by_name_alone(model):
    values = load_yaml("params.yaml")
    network = values["models"][model]["network"]
    network["name"] = {"unet": "diffusers_unet", "diffusers_unet": "unet"}[network["name"]]
    check_consistency(validate(values, "params.yaml"))


def test_a_missing_key_is_refused(tmp_path):
    values = load_yaml("params.yaml")
    del values["models"]["moons"]["training"]["batch_size"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParameterError, match=r"models\.moons\.training\.batch_size: Field required"):
        load_parameters(tmp_path / "p.yaml")


def test_a_key_given_twice_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ParameterError, match="the key 'seed' stands twice"):
        load_parameters(tmp_path / "p.yaml")


def test_broken_yaml_and_a_missing_file_are_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("seed: [1\n")
    with pytest.raises(ParameterError, match="not YAML"):
        load_parameters(tmp_path / "p.yaml")
    with pytest.raises(ParameterError, match="No such file"):
        load_parameters(tmp_path / "none.yaml")


def test_numbers_in_yaml_1_2_notation_are_numbers(tmp_path):
    text = Path("params.yaml").read_text().replace("beta_start: 1.0e-4", "beta_start: 1e-4")
    (tmp_path / "p.yaml").write_text(text)
    assert load_parameters(tmp_path / "p.yaml").models["circles"].schedule.beta_start == 1e-4


def test_no_alias_ties_two_rungs_together():
    """With a YAML alias, `dvc exp run -S` on one rung would change another."""
    assert not re.search(r":\s*[&*]\w", Path("params.yaml").read_text())


def test_every_value_has_a_comment():
    values = [line for line in Path("params.yaml").read_text().splitlines() if re.match(r"\s*[\w.]+:\s+[^#\s]", line)]
    assert len(values) > 100
    assert [line for line in values if not re.search(r"\s# \w", line)] == []


def test_the_default_preset_is_params_yaml_as_delivered():
    """Of the last commit, so that whoever changes a value isn't stopped; --save renews the preset before a commit."""
    committed = run(["git", "show", "HEAD:params.yaml"], PROJECT)
    if committed.returncode:
        pytest.skip("no Git repository")
    assert load_yaml("presets/default.yaml") == yaml.load(committed.stdout, Loader=UniqueKeyLoader)


@pytest.mark.parametrize("name", ["smoke", "full"])
def test_presets_are_valid_and_print_as_options(name):
    merged = flatten(merged_parameters(name))
    for option in overrides(name):
        flag, assignment = option.split(" ")
        key, value = assignment.split("=")
        assert flag == "-S"
        assert yaml.safe_load(value.replace(",", ", ")) == merged[key]


def test_the_full_preset_takes_the_whole_data_sets_at_full_resolution():
    values = merged_parameters("full")
    faces = values["models"]["faces"]
    assert values["datasets"]["mnist"]["source"] == "torchvision"
    assert values["datasets"]["faces"]["source"] == "hub"
    assert faces["network"]["block_out_channels"] == [64, 128, 160, 224]
    assert faces["network"]["attention_levels"] == [False, True, True, True]
    assert faces["training"]["learning_rate"] == 1e-4
    assert values["sampling"]["faces"]["steps"] == 50
