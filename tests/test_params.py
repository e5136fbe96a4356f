"""params.yaml is valid, short, fully commented; impossible values are refused in one line that names the key."""

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, run
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import load_yaml as load_as_dvc
from hypothesis import given
from hypothesis import strategies as st

from diffusion_ladder.foundation.errors import ParameterError
from diffusion_ladder.foundation.section import Section, load_yaml, look_up, merge, rung_section
from diffusion_ladder.overlays import flatten, laid_over
from diffusion_ladder.params.consistency import check_consistency
from diffusion_ladder.params.whole import load_parameters, validate
from diffusion_ladder.presets import load_preset, merged_parameters

VALUES = load_yaml("params.yaml")


def with_narrow_hub():
    """The faces from the hub, without a column of labels."""
    faces = copy.deepcopy(VALUES["datasets"]["faces"])
    faces["sources"]["hub"]["columns"] = ["image"]
    return faces | {"source": "hub"}


THRESHOLDING = {"ratio": 0.995, "max_value": 1.0}
IMPOSSIBLE = [
    ("unknown", 1, "params.yaml: unknown: unknown key"),
    ("rungs.circles.network.hidden", 3, "rungs.circles.network.hidden: unknown key"),
    ("rungs.circles.judge", "data/judges/moons", "rungs.circles.judge: unknown key"),
    ("rungs.circles.schedule.T", 0, "rungs.circles.schedule.T"),
    ("rungs.circles.schedule.T", 2.5, "rungs.circles.schedule.T"),
    ("rungs.circles.schedule.T", "1000", "rungs.circles.schedule.T"),
    ("rungs.circles.schedule.beta_end", 1e-5, "beta_end = 1e-05 is below beta_start"),
    ("rungs.circles.schedule.beta_start", 0, "rungs.circles.schedule.beta_start"),
    ("rungs.circles.schedule.name", "quadratic", "rungs.circles.schedule.name"),
    ("rungs.circles.sampling.sampler", "dpm", "rungs.circles.sampling.sampler"),
    ("rungs.circles.network.name", "unet", "rungs.circles.network"),
    ("rungs.circles.network.name", "transformer", "rungs.circles.network"),
    ("rungs.mnist_scratch.network.block_out_channels", [30, 60], "30 is no multiple of norm_groups = 8"),
    ("rungs.mnist_scratch.network.attention_levels", [True], "one entry per level"),
    ("rungs.circles.training.learning_rate", -1.0, "rungs.circles.training.learning_rate"),
    ("rungs.circles.training.gradient_clip", 0.0, "rungs.circles.training.gradient_clip"),
    ("rungs.faces.training.label_dropout", 1.0, "rungs.faces.training.label_dropout"),
    ("rungs.faces.sampling.steps", 0, "rungs.faces.sampling.steps"),
    ("rungs.faces.sampling.seeds", 1, "rungs.faces.sampling.seeds"),
    ("rungs.faces.sweep.samplers", ["ddim", "ddim"], "samplers: ['ddim', 'ddim'] holds a value twice"),
    ("rungs.faces.sweep.samplers", ["diffusers_ddim"], "rungs.faces.sweep.samplers"),
    ("rungs.faces.sweep.guidance.scales", [1.0, 1.0], "guidance.scales: [1.0, 1.0] holds a value twice"),
    ("rungs.faces.sweep.guidance", {"scales": [1.0]}, "rungs.faces.sweep.guidance.steps: Field required"),
    ("rungs.circles.evaluation.smaller_counts", [500, 250], "rungs.circles.evaluation: smaller_counts: must rise"),
    ("rungs.circles.evaluation.smaller_counts", [2000], "and stay below sample_count = 2000"),
    ("rungs.circles.evaluation.kind", "points", "rungs.circles.evaluation.kind: unknown key"),
    ("rungs.circles.evaluation.projections", 0, "rungs.circles.evaluation.projections: Input should be greater"),
    ("rungs.faces.evaluation.neighbours", 256, "neighbours: 256 is not below sample_count = 256"),
    ("rungs.faces.evaluation.inception", {"path": "a.pth", "sha256": "12"}, "rungs.faces.evaluation.inception.sha256"),
    ("rungs.faces.evaluation.kind", "images", "rungs.faces.evaluation.kind: unknown key"),
    (
        "rungs.circles.quality.wasserstein_2",
        {"at_most": 1.0, "at_least": 1.0},
        "give one of at_most, at_least, ",
    ),
    ("rungs.circles.score.grid", 1, "rungs.circles.score.grid"),
    ("rungs.bad-name", VALUES["rungs"]["circles"], "rungs.bad-name: String should match pattern"),
    ("rungs.a/b", VALUES["rungs"]["circles"], "rungs.a/b: String should match pattern"),
    ("datasets.2d", VALUES["datasets"]["circles"], "datasets.2d: String should match pattern"),
    ("classifiers.two words", VALUES["classifiers"]["mnist"], "classifiers.two words: String should match pattern"),
    ("rungs", None, "params.yaml: rungs: Input should be a valid dictionary"),
    ("rungs.circles", 3, "rungs.circles: Input should be a valid dictionary"),
    ("rungs.circles.training", None, "rungs.circles.training: Input should be a valid dictionary"),
    ("every_rung", None, "every_rung: must hold sections"),
    ("every_rung.schooling", {"steps": 1}, "every_rung.schooling: unknown key"),
    ("every_rung.title", "one for all", "every_rung.title: must be a section (found 'one for all')"),
    ("every_rung.training.stepz", 5, "every_rung.training.stepz: unknown key"),
    ("every_rung.training.adam_betas", [0.9, 1.0], "every_rung.training.adam_betas.1: Input should be less than 1"),
    ("every_rung.score.grid", 1, "every_rung.score.grid: Input should be greater than or equal to 2 (found 1)"),
    ("every_rung.evaluation.memorisation.ratio", 2.0, "every_rung.evaluation.memorisation.ratio"),
    ("datasets.mnist.source", "kaggle", "datasets.mnist.source"),
    ("datasets.circles.source", "make_moons", "datasets.circles: the source make_moons is not described"),
    ("datasets.faces.preprocess.labels", {1: 0, 2: 2}, "labels maps to the classes [0, 2]"),
    ("datasets.faces.preprocess.labels", {1: 0, 2: 1, 3: 2}, "maps to the classes [0, 1, 2], but class_names names 2"),
    ("datasets.faces.preprocess.labels", {True: 0, 2: 1}, "datasets.faces.preprocess.labels"),
    ("datasets.faces.preprocess.class_names", ["all"], "datasets.faces.preprocess.class_names"),
    ("datasets.faces.preprocess.class_names", ["one", "one"], "preprocess.class_names: a name stands twice"),
    ("datasets.faces.preprocess.channels", 4, "datasets.faces.preprocess.channels"),
    ("datasets.faces.preprocess.crop", "bottom", "datasets.faces.preprocess.crop"),
    ("datasets.faces.preprocess.input", "data/raw/faces", "datasets.faces.preprocess.input: unknown key"),
    ("rungs.faces.training.class_weights", [1.0, 0.0], "rungs.faces.training.class_weights"),
    ("datasets.faces.source", "imagefolder", "label_column: images from folders have the label in folder"),
    ("datasets.faces", with_narrow_hub(), "datasets.faces: sources.hub.columns: needs image and gender"),
    ("datasets.faces.sources.parquet.sha256", "abc", "datasets.faces.sources.parquet.sha256"),
    ("datasets.faces.preprocess.max_unusable_share", 1.5, "datasets.faces.preprocess.max_unusable_share"),
    ("datasets.faces.preprocess.test_fraction", 1.0, "datasets.faces.preprocess.test_fraction"),
    ("datasets.faces.sources.dicebear.gender_weights", {0: 1, 1: 0, 2: 0, 3: 1}, "gender_weights"),
    ("runtime.device", "tpu", "runtime.device"),
    ("rungs.circles.schedulers.training", "heun", "rungs.circles.schedulers.training"),
    (
        "rungs.circles.training.loss_weight",
        {"name": "uniform", "gamma": 5.0},
        "rungs.circles.training.loss_weight.name",
    ),
    ("rungs.circles.training.loss_weight", {"name": "p2", "gamma": 0.0}, "rungs.circles.training.loss_weight.gamma"),
    ("rungs.circles.training.pairing", "independent", "rungs.circles.training.pairing"),
    ("rungs.mnist_scratch.sampling.variance_type", "learned", "rungs.mnist_scratch.sampling.variance_type"),
    (
        "rungs.mnist_scratch.sampling",
        VALUES["rungs"]["mnist_scratch"]["sampling"] | {"clip_sample": True, "thresholding": THRESHOLDING},
        "clip_sample and thresholding are both",
    ),
    ("rungs.mnist_scratch.sampling.thresholding", {"ratio": 0.9, "max_value": 0.5}, "sampling.thresholding.max_value"),
    ("rungs.mnist_scratch.sampling.thresholding", True, "rungs.mnist_scratch.sampling.thresholding"),
    ("rungs.faces.sampling.guidance_interval", [0.7, 0.2], "[0.7, 0.2] ends before it begins"),
    ("rungs.faces.sampling.guidance_interval", [0.2], "rungs.faces.sampling.guidance_interval"),
    ("seed", -1, "params.yaml: seed"),
]


def changed(key, value):
    """The values of params.yaml with one more, or another, at a dotted key."""
    values = copy.deepcopy(VALUES)
    *parents, last = key.split(".")
    look_up(values, ".".join(parents))[last] = value
    return values


def write_changed(path, key, value):
    path.write_text(yaml.safe_dump(changed(key, value)))


@pytest.mark.parametrize(("key", "value", "complaint"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_in_one_line_that_names_it(key, value, complaint, tmp_path):
    path = tmp_path / "params.yaml"
    write_changed(path, key, value)
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
    ("rungs.circles.dataset", "squares", "rungs.circles.dataset: no data set is called squares, but circles, "),
    ("rungs.circles.dataset", "mnist", "rungs.circles.network.name: mlp can't learn digits"),
    ("rungs.faces.dataset", "moons", "rungs.faces.network.name: diffusers_unet can't learn points"),
    ("rungs.mnist_scratch.network.patch_size", 4, "divide the size by 8, which does not divide the 28 pixels"),
    ("datasets.faces.preprocess.image_size", 50, "divide the size by 8, which does not divide the 50 pixels of faces"),
    ("rungs.circles.sampling.count", 500, "circles.evaluation.sample_count: 2000 is more than sampling.count = 500"),
    (
        "rungs.circles.evaluation",
        VALUES["rungs"]["faces"]["evaluation"],
        "rungs.circles.evaluation: circles are points, which need projections",
    ),
    (
        "rungs.faces.evaluation",
        VALUES["rungs"]["circles"]["evaluation"] | {"sample_count": 256, "smaller_counts": [128]},
        "rungs.faces.evaluation: faces are portraits, which need neighbours",
    ),
    ("rungs.faces.score", {}, "rungs.faces.score: faces are portraits; an exact score can be drawn for points only"),
    ("classifiers", {"mnist": VALUES["classifiers"]["mnist"]}, "none is called faces, which rungs.faces needs"),
    ("classifiers.squares", VALUES["classifiers"]["mnist"], "classifiers.squares: no data set is called squares"),
    ("classifiers.moons", VALUES["classifiers"]["mnist"], "classifiers.moons: moons are points"),
    ("rungs.circles.schedule.rescale_betas_zero_snr", True, "epsilon-prediction is undefined at zero terminal SNR"),
    ("rungs.circles.sampling.clip_sample", True, "rungs.circles.sampling.clip_sample: would cut off circles"),
    (
        "rungs.moons.sampling.thresholding",
        {"ratio": 0.9, "max_value": 1.5},
        "rungs.moons.sampling.thresholding: would cut off moons",
    ),
    ("rungs.circles.training.flip", True, "rungs.circles.training.flip: circles are points, which have no mirror"),
    ("rungs.faces.training.pairing", "optimal_transport", "optimal_transport is for points, which faces are not"),
    ("rungs.circles.training.pairing", "optimal_transport", "rungs.circles.schedulers.comparison: ddpm adds noise"),
    ("rungs.circles.sampling.sampler", "ddpm", "schedulers.comparison are both ddpm: choose two samplers"),
    ("rungs.circles.training.label_dropout", 0.1, "rungs.circles.training.label_dropout: there are no labels to drop"),
    ("rungs.faces.sampling.steps", 1001, "rungs.faces.sampling.steps: 1001 is more than T = 1000"),
    ("every_rung.previews.steps", 1001, "previews.steps: 1001 is more than T = 1000"),
    ("rungs.faces.sampling.trajectory_count", 20, "rungs.faces.sampling.trajectory_count: more than the samples"),
    ("rungs.faces.sampling.count", 257, "rungs.faces.sampling.count: 257 is no multiple of 2 classes"),
    ("rungs.faces.sweep.count", 33, "rungs.faces.sweep.count: 33 is no multiple of 2 classes"),
    ("rungs.faces.previews.count", 9, "rungs.faces.previews.count: 9 is no multiple of 2 classes"),
    ("rungs.faces.sweep.evaluations", [10, 1001], "rungs.faces.sweep.evaluations: 1001 is more than T = 1000"),
    ("rungs.faces.sweep.guidance.steps", 1001, "rungs.faces.sweep.guidance.steps: 1001 is more than T = 1000"),
    ("rungs.circles.sweep.guidance", {"scales": [2.0], "steps": 5}, "rungs.circles.sweep.guidance: needs a null label"),
    ("rungs.circles.sampling.guidance_scale", 2.0, "rungs.circles.sampling.guidance_scale: needs a null label"),
    ("rungs.faces.training.class_weights", [1.0, 1.0, 1.0], "class_weights: 3 weights for faces, which has 2 classes"),
]


@pytest.mark.parametrize(("key", "value", "complaint"), INCONSISTENT)
def test_parts_that_do_not_fit_each_other_are_refused_in_one_line(key, value, complaint, tmp_path):
    check_consistency(load_parameters())
    write_changed(tmp_path / "params.yaml", key, value)
    parameters = load_parameters(tmp_path / "params.yaml")
    with pytest.raises(ParameterError) as refusal:
        check_consistency(parameters)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_samplers_are_held_against_the_schedule_and_the_clipping():
    values = copy.deepcopy(VALUES)
    rung = values["rungs"]["mnist_scratch"]
    sampling, sweep = rung["sampling"], rung["sweep"]
    sampling.pop("clip_sample", None)
    rung["schedulers"]["comparison"] = "diffusers_heun"
    check_consistency(validate(values))
    sampling["thresholding"] = THRESHOLDING
    with pytest.raises(ParameterError, match="thresholding: diffusers_heun knows clip_sample"):
        check_consistency(validate(values))
    rung["schedulers"]["comparison"] = "ddim"
    with pytest.raises(ParameterError, match=r"sweep\.samplers: heun can't be compared with thresholding"):
        check_consistency(validate(values))
    del sampling["thresholding"]
    rung["schedulers"]["comparison"] = "diffusers_heun"
    rung["schedule"] |= {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    sweep["samplers"] = ["ddim", "dpm_solver"]
    with pytest.raises(ParameterError, match="comparison: diffusers_heun starts at sigma"):
        check_consistency(validate(values))
    rung["schedulers"]["comparison"] = "dpm_solver"
    check_consistency(validate(values))
    sweep["samplers"] = ["heun"]
    with pytest.raises(
        ParameterError, match=r"rungs\.mnist_scratch\.sweep\.samplers: heun can't be compared with an infinite"
    ):
        check_consistency(validate(values))
    sweep |= {"samplers": ["dpm_solver"], "evaluations": [1000]}
    sampling["spacing"] = "trailing"
    check_consistency(validate(values))
    sampling["spacing"] = "linspace"
    rung["schedule"]["rescale_betas_zero_snr"] = False
    sampling["comparison_steps"] = "all"
    with pytest.raises(ParameterError, match="comparison_steps: with linspace spacing dpm_solver leaves the last"):
        check_consistency(validate(values))
    sampling["comparison_steps"] = 999
    with pytest.raises(ParameterError, match="with linspace spacing dpm_solver takes at most 999 steps"):
        check_consistency(validate(values))


def test_optimal_transport_is_accepted_with_samplers_that_add_no_noise():
    values = changed("rungs.circles.training.pairing", "optimal_transport")
    rung = values["rungs"]["circles"]
    rung["sampling"]["sampler"], rung["schedulers"]["comparison"] = "ddim", "heun"
    check_consistency(validate(values))
    rung["sampling"]["eta"] = 0.5
    with pytest.raises(ParameterError, match=r"sampling\.sampler: ddim adds noise \(eta = 0\.5\)"):
        check_consistency(validate(values))


@pytest.mark.parametrize("rung", ["mnist_scratch", "mnist_diffusers"])
def test_our_unet_and_the_librarys_are_exchanged_by_name_alone(rung):
    values = copy.deepcopy(VALUES)
    network = values["rungs"][rung]["network"]
    network["name"] = {"unet": "diffusers_unet", "diffusers_unet": "unet"}[network["name"]]
    check_consistency(validate(values))


def test_a_missing_key_is_refused(tmp_path):
    values = copy.deepcopy(VALUES)
    del values["rungs"]["moons"]["training"]["batch_size"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParameterError, match=r"p\.yaml: rungs\.moons\.training\.batch_size: Field required"):
        load_parameters(tmp_path / "p.yaml")
    del values["rungs"]["moons"]["score"], values["every_rung"]["training"]["weight_decay"]
    values["rungs"]["moons"]["training"]["batch_size"] = 4
    with pytest.raises(ParameterError, match=r"rungs\.circles\.training\.weight_decay: Field required"):
        validate(values)


# What stands under every_rung


def test_a_rungs_own_value_wins_over_that_of_every_rung():
    values = changed("rungs.moons.training.warmup_steps", 7)
    values["every_rung"]["training"]["log_every"] = 3
    rungs = validate(values).rungs
    assert {name: rung.training.warmup_steps for name, rung in rungs.items()} == {
        name: 7 if name == "moons" else VALUES["every_rung"]["training"]["warmup_steps"] for name in VALUES["rungs"]
    }
    assert rungs["moons"].training.log_every == VALUES["rungs"]["moons"]["training"]["log_every"] != 3


def test_a_nested_section_is_merged_key_by_key():
    shared, own = (block["evaluation"]["memorisation"] for block in (VALUES["every_rung"], VALUES["rungs"]["faces"]))
    assert shared.keys().isdisjoint(own)
    assert load_parameters().rungs["faces"].evaluation.memorisation.model_dump() == shared | own


def test_a_complaint_names_the_place_where_the_value_stands():
    with pytest.raises(ParameterError, match=r"every_rung\.sampling\.seeds: Input should be greater"):
        validate(changed("every_rung.sampling.seeds", 1))
    values = changed("rungs.faces.sampling.seeds", 1)
    with pytest.raises(ParameterError, match=r"rungs\.faces\.sampling\.seeds: Input should be greater"):
        validate(values)


def test_an_optional_section_of_every_rung_is_only_in_the_rungs_that_have_it():
    rungs = load_parameters().rungs
    assert [name for name, rung in rungs.items() if rung.score] == ["circles", "moons"]
    assert rungs["moons"].score.model_dump() == VALUES["every_rung"]["score"]
    values = copy.deepcopy(VALUES)
    del values["rungs"]["circles"]["score"]
    assert validate(values).rungs["circles"].score is None
    assert rung_section(values, "circles", "score") is None


nested = st.recursive(
    st.integers(), lambda part: st.dictionaries(st.sampled_from("abc"), part, max_size=3), max_leaves=8
)


@given(nested, nested)
def test_what_is_laid_over_another_wins_leaf_by_leaf(values, overlay):
    """Against dotted keys: every leaf of the overlay is there, and those of the values that nothing lies on."""

    def leaves(tree, path=()):
        inside = isinstance(tree, dict) and tree
        return {k: v for key in tree for k, v in leaves(tree[key], (*path, key)).items()} if inside else {path: tree}

    merged = merge(values, overlay)
    below, above = leaves(values), leaves(overlay)
    if not (isinstance(values, dict) and isinstance(overlay, dict)):
        assert merged == overlay
        return
    meets = lambda one, other: one[: len(other)] == other or other[: len(one)] == one  # noqa: E731
    expected = {path: value for path, value in below.items() if path and not any(meets(path, top) for top in above)}
    found = leaves(merged)
    assert expected.items() <= found.items()
    assert {path: value for path, value in above.items() if path and value != {}}.items() <= found.items()


# Every number is finite

FEATURES = {  # what is off by default, so that every field of the schema has a value somewhere
    "rungs.faces.training": {
        "loss_weight": {"name": "p2", "gamma": 1.0},
        "ema_choice": {"decays": [0.9, 0.99], "batches": 2},
        "class_weights": [1.0, 2.0],
        "examples": 500,
        "flip": True,
        "stratified_timesteps": True,
        "timestep_density": {"log_snr_mean": 0.5, "log_snr_deviation": 2.0},
        "decay": {"shape": "linear", "share": 0.2},
    },
    "rungs.circles.training": {"pairing": "optimal_transport"},
    "rungs.circles.schedulers": {"comparison": "heun"},
    "rungs.faces.sampling": {"guidance_interval": [0.1, 0.9]},
    "rungs.faces.sweep": {"eta": 0.5},
    "rungs.faces.evaluation": {"inception": {"path": "weights.pth", "sha256": "0" * 64}},
    "rungs.mnist_diffusers.sampling": {"clip_sample": False, "thresholding": THRESHOLDING},
    "rungs.mnist_diffusers.network": {"folding": "haar", "zero_init": True},
    "rungs.faces.quality": {
        "recall": {"at_least": 0.5},
        "precision": {"at_most_of_range": 0.5},
        "kernel_distance": {"at_most": 0.5},
        "frechet_distance": {"at_most_floor": 2.0},
        "high_frequency_ratio": {"within_factor": 1.5},
    },
    "rungs.mnist_diffusers.sweep": {"samplers": ["ddim"]},
    "rungs.mnist_diffusers.schedule": {"rescale_betas_zero_snr": False},
    "datasets.mnist.sources.torchvision": {"name": "EMNIST", "split": "letters", "root": "digits", "sha256": "0" * 64},
    "datasets.faces.sources.parquet": {"path": "faces.parquet", "sha256": "0" * 64},
    "datasets.faces.sources.imagefolder": {"path": "faces", "sha256": "0" * 64},
}


def with_features():
    values = copy.deepcopy(VALUES)
    for key, features in FEATURES.items():
        look_up(values, key).update(copy.deepcopy(features))
    return values


def sections_in(value) -> Iterator[Section]:
    """All sections of the typed parameters."""
    if isinstance(value, Section):
        yield value
        value = {name: getattr(value, name) for name in type(value).model_fields}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        yield from sections_in(part)


def all_sections(kind=Section) -> Iterator[type[Section]]:
    for section in kind.__subclasses__():
        yield section
        yield from all_sections(section)


def numbers_in(value, path=()) -> Iterator[tuple]:
    """Where numbers stand in plain values, those among texts too; booleans are none."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from numbers_in(part, (*path, key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path


def test_the_features_here_give_every_field_of_the_schema_a_value():
    parameters = validate(with_features())
    check_consistency(parameters)
    given_fields = {
        (kind, name)
        for section in sections_in(parameters)
        for kind in type(section).__mro__
        for name in section.model_fields_set
        if getattr(section, name) is not None
    }
    schema = [kind for kind in all_sections() if "study" not in kind.__module__]  # whose files are their own
    missing = {(kind, name) for kind in schema for name in kind.model_fields} - given_fields
    assert missing == set()


def test_infinities_and_what_is_no_number_are_refused_everywhere():
    values = with_features()
    places = list(numbers_in(values))
    assert len(places) > 300
    accepted = []
    for *parents, last in places:
        inside = values
        for key in parents:
            inside = inside[key]
        before = inside[last]
        for bad in (math.inf, -math.inf, math.nan):
            inside[last] = bad
            try:
                validate(values)
            except ParameterError:
                continue
            accepted.append((*parents, last, bad))
        inside[last] = before
    assert accepted == []


# Reading YAML


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 1\nseed: 2\n", 'found duplicate key "seed" with value "2"'),
        ("rungs:\n  circles: {dataset: a, dataset: b}\n", 'found duplicate key "dataset"'),
        ("seed: [1\n", "not YAML"),
        ("seed: &a 1\nb: *c\n", "undefined alias"),
        ("", "p.yaml: holds no keys"),
        ("- seed\n", "p.yaml: holds no keys"),
    ],
)
def test_what_is_no_mapping_of_unique_keys_is_refused_in_one_line(text, complaint, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ParameterError) as refusal:
        load_parameters(tmp_path / "p.yaml")
    assert complaint in str(refusal.value)
    assert str(tmp_path / "p.yaml") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_in_another_encoding_and_a_missing_one_are_refused_in_one_line(tmp_path):
    (tmp_path / "p.yaml").write_bytes("seed: 0\ntitle: Gr\xf6\xdfe\n".encode("latin-1"))
    with pytest.raises(ParameterError, match=r"p\.yaml: not UTF-8 in line 2: save it as UTF-8$"):
        load_parameters(tmp_path / "p.yaml")
    with pytest.raises(ParameterError, match=r"none\.yaml: No such file or directory$"):
        load_parameters(tmp_path / "none.yaml")
    with pytest.raises(ParameterError, match=r"Is a directory$"):
        load_parameters(tmp_path)


def test_yaml_is_read_as_version_1_2_like_dvc(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "{a: 0100, b: no, c: on, d: 1e-4, e: 1_000, f: 0o17, g: true, h: null, i: 2001-02-03x, j: .inf, k: y}"
    )
    values = load_yaml(path)
    assert values == load_as_dvc(path)
    assert (values["a"], type(values["a"])) == (100, int)
    assert (values["b"], values["c"], values["k"], values["i"]) == ("no", "on", "y", "2001-02-03x")
    assert (values["d"], values["f"], values["g"], values["h"]) == (1e-4, 15, True, None)
    assert load_yaml("params.yaml") == load_as_dvc("params.yaml")


def test_numbers_in_yaml_1_2_notation_are_numbers(tmp_path):
    text = Path("params.yaml").read_text().replace("beta_start: 1.0e-4", "beta_start: 1e-4")
    (tmp_path / "p.yaml").write_text(text)
    assert load_parameters(tmp_path / "p.yaml").rungs["circles"].schedule.beta_start == 1e-4


# Changing a value from the command line


def overridden(folder, *changes):
    """params.yaml as `dvc exp run -S CHANGE` rewrites it."""
    path = folder / "params.yaml"
    path.write_text(Path("params.yaml").read_text())
    apply_overrides(path, [*changes])
    return path


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("rungs.circles.schedule.T=250", 250),
        ("rungs.faces.sampling.guidance_scale=2", 2),
        ("rungs.moons.sampling.sampler=ddim", "ddim"),
        ("rungs.mnist_scratch.training.steps=9", 9),
        ("every_rung.training.gradient_clip=0.5", 0.5),
        ("datasets.mnist.source=torchvision", "torchvision"),
    ],
)
def test_a_value_that_is_there_needs_no_plus_sign(change, value, tmp_path):
    path = overridden(tmp_path, change)
    key = change.split("=")[0]
    assert flatten(load_yaml(path)) == flatten(VALUES) | {key: value}
    assert path.read_text().count("#") == Path("params.yaml").read_text().count("#")  # the comments are kept
    load_parameters(path)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("rungs.mnist_scratch.training.flip=true", True),
        ("rungs.mnist_scratch.training.loss_weight={name:min_snr,gamma:5.0}", {"name": "min_snr", "gamma": 5.0}),
        ("rungs.faces.training.ema_choice={decays:[0.9,0.99],batches:4}", {"decays": [0.9, 0.99], "batches": 4}),
        ("rungs.faces.sampling.guidance_interval=[0.2,0.8]", [0.2, 0.8]),
        ("rungs.circles.schedule.rescale_betas_zero_snr=false", False),
        ("rungs.circles.training.warmup_steps=5", 5),
        ("every_rung.training.flip=false", False),
    ],
)
def test_what_is_off_is_turned_on_with_a_plus_sign(change, value, tmp_path):
    path, key = overridden(tmp_path, f"+{change}"), change.split("=")[0]
    values = load_yaml(path)
    assert look_up(values, key) == value
    parameters = validate(values)
    check_consistency(parameters)
    if key.startswith("rungs."):
        found = look_up(parameters.rungs[key.split(".")[1]], key.split(".", 2)[2])
        assert (found.model_dump() if isinstance(found, Section) else found) == value


# The file itself


def blocks_of_rungs(text):
    """Each rung's lines."""
    inside = text.split("\nrungs:\n")[1].split("\n\n")[0].splitlines()
    starts = [number for number, line in enumerate(inside) if re.match(r"  \w", line)]
    return {inside[a].strip(" :"): inside[a:b] for a, b in zip(starts, [*starts[1:], len(inside)], strict=True)}


def test_params_yaml_is_short():
    text = Path("params.yaml").read_text()
    blocks = blocks_of_rungs(text)
    assert list(blocks) == list(VALUES["rungs"])
    assert len(text.splitlines()) <= 420
    assert {name: len(lines) for name, lines in blocks.items() if len(lines) > 60} == {}


def test_no_alias_ties_two_rungs_together():
    """With a YAML alias, `dvc exp run -S` on one rung would change another."""
    assert not re.search(r"(:|-|[\[{,])\s*[&*]\w", Path("params.yaml").read_text())


def test_every_value_has_a_comment_where_its_key_first_appears():
    """A comment beside it; for a section on one line, beside the same key in a section that is spelt out before."""
    commented, bare = set(), []
    for line in Path("params.yaml").read_text().splitlines():
        match = re.match(r"\s*([\w.]+):\s+([^#\s].*)", line)
        if match is None:
            continue
        key, value = match.groups()
        inside = {*re.findall(r"[{,]\s*(\w+): (?!\{)", value)}
        if re.search(r"\s# \w", value):
            commented |= {key, *inside}
        elif key not in commented and not (inside and inside <= commented):
            bare.append(line)
    assert len(commented) > 100
    assert bare == []


def test_no_key_is_null_but_the_paths_that_a_user_must_give():
    """A feature that is off is absent."""
    assert {key for key, value in flatten(VALUES).items() if value is None} == {
        "datasets.faces.sources.parquet.path",
        "datasets.faces.sources.imagefolder.path",
    }


# Presets


def test_the_default_preset_is_params_yaml_as_delivered(tmp_path):
    """Of the last commit, so that whoever changes a value isn't stopped; --save renews the preset before a commit."""
    committed = run(["git", "show", "HEAD:params.yaml"], PROJECT)
    if committed.returncode:
        pytest.skip("no Git repository")
    (tmp_path / "committed.yaml").write_text(committed.stdout)
    assert load_yaml("presets/default.yaml") == load_yaml(tmp_path / "committed.yaml")


@pytest.mark.parametrize("name", ["smoke", "hour", "full"])
def test_presets_are_valid_and_lie_on_params_yaml(name):
    """What a preset says of a rung counts first, then what it says of every rung, then params.yaml."""
    preset = flatten(load_preset(name))
    expected = {}
    for key, value in flatten(VALUES).items():
        in_every_rung = re.sub(r"^rungs\.\w+", "every_rung", key)
        expected[key] = preset.get(key, preset.get(in_every_rung, value))
    assert flatten(merged_parameters(name)) == expected
    assert {key for key in preset if not key.startswith("every_rung.")} <= set(expected)


def test_a_preset_with_a_key_that_params_yaml_does_not_have_is_refused():
    with pytest.raises(ParameterError, match=r"preset: params\.yaml has no rungs\.circles\.trainin\.steps"):
        laid_over(VALUES, {"rungs": {"circles": {"trainin": {"steps": 3}}}})


def test_the_full_preset_takes_the_whole_data_sets_at_full_resolution():
    values = merged_parameters("full")
    faces = values["rungs"]["faces"]
    assert values["datasets"]["mnist"]["source"] == "torchvision"
    assert values["datasets"]["faces"]["source"] == "hub"
    assert faces["network"]["block_out_channels"] == [64, 128, 160, 224]
    assert faces["network"]["attention_levels"] == [False, True, True, True]
    assert faces["training"]["learning_rate"] == 1e-4
    assert faces["sampling"]["steps"] == 50
