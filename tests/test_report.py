import ast
import base64
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from justhtml import JustHTML
from PIL import Image
from test_studies import results_of
from tracing import is_printed_form_of, parsed, untraced

from diffusion_ladder.diffusion.schedules import make_schedule
from diffusion_ladder.foundation.hashes import md5_of_output
from diffusion_ladder.foundation.section import load_yaml, merge
from diffusion_ladder.overlays import for_each_rung
from diffusion_ladder.params.quality import Threshold
from diffusion_ladder.params.training import LossWeight
from diffusion_ladder.params.whole import load_parameters, validate
from diffusion_ladder.quality import checks
from diffusion_ladder.quality import measured_numbers as measured_at_gate
from diffusion_ladder.report.changes import changes_since
from diffusion_ladder.report.content import Reader
from diffusion_ladder.report.equations import EQUATIONS_BY_KEY, equations_of
from diffusion_ladder.report.excerpts import EXCERPTS, excerpts_of, function_source, source_of
from diffusion_ladder.report.metrics import DESCRIPTIONS, facts_of, headline_of, metrics_of
from diffusion_ladder.report.model_cards import CARDS, place_cards
from diffusion_ladder.report.notation import latex, mathml
from diffusion_ladder.report.page import build_pages
from diffusion_ladder.report.pictures import embedded_pictures
from diffusion_ladder.report.provenance import provenance_of
from diffusion_ladder.report.rendering import TEMPLATES, number, plain, prose, size, with_spread
from diffusion_ladder.report.run_page import bars_of, duration, read_records, run_page, write_run_page
from diffusion_ladder.report.stage_graph import drawing, read_stages
from diffusion_ladder.report.study_page import write_study
from diffusion_ladder.report.verdict import data_in_words, preset_of
from diffusion_ladder.report.words import about_network, about_training

REPOSITORY = Path(__file__).resolve().parents[1]
PARAMETERS = load_parameters(REPOSITORY / "params.yaml")
VOID = {"meta", "link", "br", "img", "input", "hr", "circle", "path"}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef
SHA = "0123456789abcdef" * 4


# Artifacts in the formats of the other stages, with invented numbers


def measurement(name, samples, floor, ceiling, deviation):
    keys = {name: samples, f"{name}_floor": floor, f"{name}_ceiling": ceiling}
    return {**keys, **{f"{key}_std": deviation * (1 + i) for i, key in enumerate(keys)}}


def metrics_for(kind, shift):
    sizes = {"sample_count": 500, "sampling_seeds": 3, "nfe": 137}
    if kind == "points":
        return {
            **measurement("wasserstein_2", 0.0713 + shift, 0.0471, 0.5172, 0.00123),
            **measurement("outside_tube_share", 0.0317, 0.00261, 0.7127, 0.00377),
            **measurement("first_curve_share", 0.5037, 0.5002, 0.5513, 0.0113),
            **sizes,
            "judge": "noise-free curves",
            "tube_radius": 0.15000000000000002,
        }
    conditional = {
        **measurement("label_accuracy", 0.9871, 0.9973, 0.4982, 0.00437),
        "requested_female_judged_male": 0.0087,
    }
    return {
        **measurement("frechet_distance", 17.313 + shift, 1.8769, 412.37, 0.4321),
        **measurement("confidence", 0.9413, 0.9743, 0.6127, 0.00213),
        **(conditional if kind == "portraits" else {}),
        **sizes,
        "extractor": "mnist classifier",
        "extractor_sha256": SHA,
        "extractor_accuracy": 0.9767,
    }


URLS = ["https://example.org/first/rows.gz", "https://example.org/second/rows.gz"]
PROVENANCE = {
    "digits": {
        "published": [{"name": "rows.gz", "urls": URLS, "md5": "f68b3c2dcbeaaa9fbdd348bbdeb94873", "size": 9912422}],
        "checked": "MD5 and size as published",
    },
    "portraits": {
        "parameters": {"revision": "v1.0", "columns": ["image", "gender"]},
        "published": [{"name": "rows.parquet", "urls": URLS[:1], "sha256": "d63c" * 16, "size": 349105031}],
    },
}


def card_for(name, dataset):
    classes = {"points": ["outer", "inner"], "portraits": ["female", "male"]}.get(dataset.kind, list("0123456789"))
    filtered = {"rows_in": 4012, "dropped": {"gender 0": 83, "gender 3": 79}} if dataset.kind == "portraits" else {}
    return {
        "dataset": name,
        "kind": dataset.kind,
        "source": dataset.source,
        "title": f"The set {name} <of & for> tests",
        "rows": 4012,
        "synthetic": dataset.kind != "digits",
        "origin": "https://example.org/set",
        "creator": "Nobody | in particular",
        "licence": "CC0",
        "licence_url": "https://example.org/licence",
        "licence_note": "",
        "files": [{"name": "rows.bin", "sha256": SHA, "size": 240152}],
        "class_names": classes,
        "splits": {
            split: {"rows": 100 * len(classes), "by_class": dict.fromkeys(classes, 100)} for split in ("train", "test")
        },
        "duplicates": {"in_train": 0, "in_test": 1, "between_splits": 0},
        "normalisation": {"mean": [0.5], "std": [0.5]},
        "pictures": {
            **{"smallest": [60, 90], "largest": [640, 960], "crop": "top"},
            **{"cropped": 17, "shrunk": 16, "enlarged": 1},
        },
        **filtered,
        **PROVENANCE.get(dataset.kind, {}),
    }


def picture_bytes(shade, animated=False):
    frames = [Image.new("RGB", (96, 48), (shade, 10 * i, 90)) for i in range(3 if animated else 1)]
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": frames[1:]} if animated else {}
    frames[0].save(buffer, "WEBP" if animated else "PNG", **options)
    return buffer.getvalue()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, sort_keys=True, indent=2), encoding="utf-8")


def write_figures(folder, shade):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.png").write_bytes(picture_bytes(shade))
    (folder / "reverse.webp").write_bytes(picture_bytes(shade, animated=True))
    entries = [("samples.png", "Samples"), ("reverse.webp", "Reverse process, moving")]
    captions = [{"file": file, "title": title, "caption": f"{title} & more."} for file, title in entries]
    write_json(folder / "captions.json", [{**caption, "alt": f'"{caption["title"]}"'} for caption in captions])


def write_artifacts(root, parameters=PARAMETERS):
    for index, (key, model) in enumerate(parameters.rungs.items()):
        dataset = parameters.datasets[model.dataset]
        write_json(root / f"reports/metrics/{key}.json", metrics_for(dataset.kind, 0.0011 * index))
        write_json(root / f"reports/data/{model.dataset}.json", card_for(model.dataset, dataset))
        facts = {"parameters": 100_003 + index, "images_seen": 614_400 + index, "terminal_snr": 0.00627 * (index % 2)}
        facts |= {"final_loss": 0.03017 + 0.001 * index, "zero_loss": 1.0, "ema_half_life": 22_156.3 + index}
        facts["forward_process"] = make_schedule("linear", 100 + index, 0.001, 0.03).facts()
        write_json(root / f"models/{key}/rung.json", facts)
        write_figures(root / f"reports/figures/{key}", 40 * index)
    for name in parameters.classifiers:
        accuracy = {"accuracy": 0.9731, "accuracy_std": 0.00513, "train_accuracy": 0.9997, "test_count": 1002}
        write_json(root / f"reports/metrics/classifiers/{name}.json", accuracy)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_artifacts(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def pages(root):
    return build_pages(root, PARAMETERS)


# The page as HTML


class Page(HTMLParser):
    """What a page consists of; complains about tags that don't match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.problems, self.texts, self.data = [], [], [], [], []
        self.feed(text)
        self.close()
        if self.open:
            self.problems.append(f"never closed: {self.open}")

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        if len(names) != len(set(names)):
            self.problems.append(f"<{tag}> repeats an attribute at {self.getpos()}")
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes something else")

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)
        if self.open and self.open[-1] == "data":
            self.data.append((self.elements[-1][1]["value"], data))

    def all(self, tag, attribute):
        return [attributes[attribute] for name, attributes in self.elements if name == tag and attribute in attributes]


def complaints_about(text):
    page = Page(text)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    anchors = [link[1:] for link in page.all("a", "href") if link.startswith("#")]
    labelled = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    resources = [
        attributes[name]
        for tag, attributes in page.elements
        for name in ("src", "srcset", "poster", "data", "href")
        if attributes.get(name) and (tag != "a" or name != "href")
    ]
    return [
        *page.problems,
        *([] if headings[0] == 1 and headings.count(1) == 1 else ["not one h1 at the start"]),
        *[f"h{a} is followed by h{b}" for a, b in pairwise(headings) if b > a + 1],
        *[f"id {name} is not unique" for name in ids if ids.count(name) > 1],
        *[f"#{name} leads nowhere" for name in {*anchors, *labelled} if name not in ids],
        *[f"resource from elsewhere: {url[:60]}" for url in resources if not url.startswith("data:")],
        *[f"image without words: {a.get('src', '')[:60]}" for t, a in page.elements if t == "img" and not a.get("alt")],
        *(["style sheet asks for something"] if re.search(r"@import|url\(", text.split("</style>")[0]) else []),
        *[f"{part} is missing" for part in ("<!DOCTYPE html>", 'lang="en"', "<title>", "viewport") if part not in text],
    ]


def test_page_is_sound_html(pages):
    assert complaints_about(pages.html) == []


def test_pages_are_valid_html(pages):
    """By the HTML standard's own parser: no parse errors."""
    for text in (pages.html, run_page([RECORD | {"stage": "train@circles"}]), run_page([])):
        assert [f"{error.code} at {error.line}" for error in JustHTML(text, collect_errors=True).errors] == []
    assert JustHTML(pages.html.replace("</h2>", "</h3>", 1), collect_errors=True).errors


def test_the_checker_sees_what_is_wrong(pages):
    broken = pages.html.replace("</h2>", "</h3>", 1).replace('alt="', 'title="', 1).replace('src="data:', 'src="x', 1)
    assert len(complaints_about(broken)) >= 3


def test_texts_from_artifacts_are_escaped(pages):
    assert "The set mnist &lt;of &amp; for&gt; tests" in pages.html
    assert r"Nobody \| in particular" in pages.markdown


def test_data_cards_tell_where_files_are_published_and_how_they_were_checked(pages):
    words = " ".join(" ".join(Page(pages.html).texts).split())
    markdown = pages.markdown.replace("`", "")
    for kind, facts in PROVENANCE.items():
        file = facts["published"][0]
        for text in (words, markdown):
            assert f"Published: {file['name']}" in text, kind
            assert all(url in text for url in file["urls"])
            assert file.get("md5", file.get("sha256")) in text
    for text in (words, markdown):
        assert "MD5 and size as published" in text
        assert re.search(r"Columns read \|? ?image, gender", text)


def test_every_rung_has_its_chapter_in_order(pages):
    page = Page(pages.html)
    sections = [name for name in page.all("section", "id") if name in PARAMETERS.rungs]
    assert sections == list(PARAMETERS.rungs)
    assert re.findall(r'<a id="(\w+)"></a>', pages.markdown)[2:-7] == list(PARAMETERS.rungs)
    words = " ".join(page.texts)
    for model in PARAMETERS.rungs.values():
        assert model.title in words
        assert f"## {model.title}\n" in pages.markdown


def test_pictures_are_embedded_unchanged(pages, root):
    embedded = [base64.b64decode(url.split(",")[1]) for url in Page(pages.html).all("img", "src")]
    folders = [root / "reports/figures" / key for key in PARAMETERS.rungs]
    assert embedded == [(folder / "samples.png").read_bytes() for folder in folders]
    assert pages.linked == []


def test_figures_stand_under_their_topic_in_the_order_of_reading(root, pages, tmp_path):
    shutil.copytree(root, tmp_path / "project")
    folder = tmp_path / "project/reports/figures/circles"
    names = ["guidance", "neighbours", "cost_of_samplers", "held_out", "loss_by_timestep", "schedule", "forward", "odd"]
    for name in names:
        (folder / f"{name}.png").write_bytes(picture_bytes(7))
    write_json(
        folder / "captions.json", [dict.fromkeys(("title", "caption", "alt"), n) | {"file": f"{n}.png"} for n in names]
    )
    chapter = Reader(tmp_path / "project", PARAMETERS).report().chapters[0]
    assert [(topic.key, [picture.name for picture in topic.pictures]) for topic in chapter.topics] == [
        ("forward", ["forward"]), ("schedule", ["schedule"]), ("training", ["loss_by_timestep"]),
        ("samples", ["held_out"]),
        ("cost", ["cost_of_samplers"]), ("labels", ["guidance"]), ("memorisation", ["neighbours"]), ("other", ["odd"]),
    ]  # fmt: skip


def test_the_verdict_on_memorisation_and_its_facts_stand_under_their_topic(root, tmp_path):
    shutil.copytree(root, tmp_path / "project")
    path = tmp_path / "project/reports/metrics/faces.json"
    facts = {"memorisation_verdict": "New: no sample is a copy.", "memorisation_count": 77, "copied_share": 0.03}
    write_json(path, json.loads(path.read_text()) | facts)
    pages = build_pages(tmp_path / "project", PARAMETERS)
    assert complaints_about(pages.html) == []
    part = pages.markdown.split("## Part 3")[1].split("### Memorisation")[1].split("###")[0]
    assert "**Verdict:** New: no sample is a copy." in part
    assert "77" in part
    assert pages.markdown.count("no sample is a copy") == 1


def test_rung_zero_stands_before_the_first_rung_with_its_equation_its_alarm_and_its_commands(root, tmp_path, pages):
    assert "rung-zero" not in pages.html + pages.markdown  # where nothing was measured of it
    shutil.copytree(root, tmp_path / "project")
    image = next((root / "reports/figures/circles").glob("*.png"))
    for key, kind in (("circles", "points"), ("mnist_scratch", "digits")):
        measured = metrics_for(kind, 0.1) | measurement("copied_share", 0.9137, 0.1143, 0.9991, 0.0171)
        measured |= {"memorisation_verdict": f"Signs of memorisation in {key} <all>.", "known_examples": 317}
        measured |= {"gaussian_std_error_of_13_steps": 0.0719} if kind == "points" else {}
        write_json(tmp_path / f"project/reports/metrics/ideal/{key}.json", measured)
        folder = tmp_path / f"project/reports/figures/ideal/{key}"
        folder.mkdir(parents=True)
        shutil.copy(image, folder / "samples.png")
        entry = {"file": "samples.png", "title": "Nothing new", "caption": "Copies.", "alt": "Points."}
        write_json(folder / "captions.json", [entry])
    found = build_pages(tmp_path / "project", PARAMETERS)
    assert complaints_about(found.html) == []
    part = found.markdown.split("## Rung 0: the ideal denoiser")[1].split('<a id="circles">')[0]
    assert "**(1) The ideal denoiser**" in part
    assert "def data_set_x0(" in part
    for key in ("circles", "mnist_scratch"):
        assert f"**Verdict:** {plain(f'Signs of memorisation in {key} <all>.')}" in part
        assert f"`dvc repro -s -f ideal_denoiser@{key}`" in part
        assert f"Signs of memorisation in {key} &lt;all&gt;." in found.html
    assert re.search(r"Gaussian chain of 13 steps: .*0\.0719", part)
    assert part.count("0.914") == part.count("knows: 317") == 2
    assert found.html.index('id="rung-zero"') < found.html.index('<section class="chapter" id="circles"')
    numbers = re.findall(r"\*\*\((\d+)\) ", found.markdown)
    assert numbers == [str(index + 1) for index in range(len(numbers))]


def test_under_each_figure_stands_the_command_that_draws_it_again(pages):
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for stage, outs in (("render", "reports/figures/${key}"), ("compare_scores", "reports/figures/scores/${key}")):
        assert {outs: {"cache": False}} in stages[stage]["do"]["outs"]
    commands = [text for text in Page(pages.html).texts if re.match("dvc repro -s -f .*@", text)]
    assert commands == [f"dvc repro -s -f render@{key}" for key in PARAMETERS.rungs]
    in_markdown = re.findall(r"`(dvc repro -s -f \S+@\S+)`", pages.markdown)  # which has the animations, too
    assert in_markdown == [command for command in commands for _ in range(2)]


def test_the_schedule_is_told_in_numbers(pages, root):
    card = json.loads((root / "models/circles/rung.json").read_text())
    assert card["forward_process"]["terminal_log_snr"] == pytest.approx(
        math.log(card["forward_process"]["terminal_alpha_bar"] / (1 - card["forward_process"]["terminal_alpha_bar"]))
    )
    shown = {value for value, _ in Page(pages.html).data}
    assert {str(value) for value in card["forward_process"].values()} <= shown


# The verdict


def with_thresholds(**limits):
    """The parameters with these thresholds for circles, and none for other rungs."""
    thresholds = {name: Threshold(**limit) for name, limit in limits.items()}
    rungs = {
        name: rung.model_copy(update={"quality": thresholds if name == "circles" else {}})
        for name, rung in PARAMETERS.rungs.items()
    }
    return PARAMETERS.model_copy(update={"rungs": rungs})


def test_the_verdict_names_the_rung_that_falls_short_and_by_how_much(root):
    limits = {"wasserstein_2": {"at_most": 0.05}, "first_curve_share": {"at_least": 0.4}, "gone": {"at_least": 0.9}}
    pages = build_pages(root, with_thresholds(**limits))
    assert complaints_about(pages.html) == []
    page = " ".join(" ".join(Page(pages.html).texts).split())
    for text, stars in ((page, ""), (pages.markdown, "*")):
        title = f"{stars}2-Wasserstein distance{stars}"
        assert "1 of 3 thresholds are met." in text
        assert re.search(
            rf"Part 1: circles falls short: ?{re.escape(title)} ?is 0.0713 ± 0.0012 where at most 0.05 is asked for,"
            " 0.0213 too much.".replace(".", r"\."),
            text,
        ), text[:3000]
        assert re.search(r"was not measured \(at least 0\.9 is asked for\)", text)
    words = [text for text in Page(pages.html).texts if text in ("pass", "falls short", "not measured")]
    assert words[:4] == ["falls short", "pass", "not measured", "not measured"]


def test_the_verdict_says_when_every_threshold_is_met(root):
    pages = build_pages(root, with_thresholds(wasserstein_2={"at_most": 0.08}))
    for text in (pages.html, pages.markdown):
        assert "Every rung reaches its thresholds." in text
        assert "falls short" not in text


def test_the_verdict_is_the_gate(root, pages):
    found = [each.check for each in Reader(root, PARAMETERS).report().judgements]
    assert found == [
        check for name, rung in PARAMETERS.rungs.items() for check in checks(measured_at_gate(root, name), rung.quality)
    ]


@pytest.mark.parametrize("name", ["default", "smoke", "hour", "full"])
def test_the_preset_is_named_and_what_differs_from_it(name, tmp_path):
    shutil.copytree(REPOSITORY / "presets", tmp_path / "presets")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path / "presets/default.yaml")
    ground = load_yaml(tmp_path / "presets/default.yaml")
    values = merge(ground, for_each_rung(load_yaml(REPOSITORY / f"presets/{name}.yaml"), ground))
    assert str(preset_of(validate(values, name), tmp_path / "presets")) == f"the {name} preset, unchanged"
    values = merge(values, {"seed": 5, "rungs": {"faces": {"sampling": {"guidance_scale": 2.0}}}})
    told = str(preset_of(validate(values, name), tmp_path / "presets"))
    assert told == f"the {name} preset with 2 changed: `seed`, `rungs.faces.sampling.guidance_scale`"


def test_data_are_embedded_or_whole_or_the_users(pages):
    assert data_in_words(PARAMETERS) == "embedded, all of them"
    mixed = merge(PARAMETERS.model_dump(exclude_unset=True), {"datasets": {"mnist": {"source": "torchvision"}}})
    told = data_in_words(validate(mixed, "mixed"))
    assert told == "embedded: `circles`, `moons`, `faces`; full: `mnist`"
    assert "Data: embedded, all of them" in pages.markdown


@pytest.fixture(scope="module")
def other_data(root, tmp_path_factory):
    """The report where faces are photographs in a file of the user's, some of which can't be used."""
    folder = tmp_path_factory.mktemp("other data") / "project"
    shutil.copytree(root, folder)
    path = folder / "reports/data/faces.json"
    card = json.loads(path.read_text()) | {
        "synthetic": False,
        "licence": "not stated",
        "parameters": {"revision": "abc123"},
        "label_column": "sort",
        "labels": {"1": 0, "2": 1, "zwei": 1},
        "dropped": {"sort 0": 40, "truncated image": 2},
        "unusable_rows": [{"file": "mine-00001.parquet", "row": 17, "reason": "truncated image"}],
    }
    write_json(path, card)
    figures = folder / "reports/data/faces"
    figures.mkdir()
    (figures / "examples.png").write_bytes(picture_bytes(222))
    write_json(figures / "captions.json", [{"file": "examples.png", "title": "Examples", "caption": "C", "alt": "E"}])
    return build_pages(folder, PARAMETERS), picture_bytes(222)


def test_the_card_says_what_was_dropped_and_what_may_not_be_published(other_data):
    pages, _ = other_data
    words = " ".join(" ".join(Page(pages.html).texts).split())
    assert complaints_about(pages.html) == []
    for text in (words, pages.markdown.replace("`", "")):
        assert "must not be committed or published without the right to" in text
        assert re.search(r"Revision[ |]+abc123", text)
        assert re.search(r"42 of 4,012: *40 \(sort 0\) *, *2 \(truncated image\)", text)
        assert "row 17 of mine-00001.parquet: truncated image" in text
        assert re.search(r"by the column sort *: 1 is female, 2 is male, zwei is male", text)


def test_drawings_bear_no_such_note(pages):
    assert "must not be committed" not in pages.html + pages.markdown


def test_the_figures_of_a_card_stand_in_the_chapter_that_shows_it(other_data):
    pages, content = other_data
    embedded = [base64.b64decode(url.split(",")[1]) for url in Page(pages.html).all("img", "src")]
    assert embedded.count(content) == 1
    assert pages.markdown.count("](data/faces/examples.png)") == 1
    assert pages.html.index('href="data/faces/examples.png"') > pages.html.index('id="faces"')


def test_animations_are_for_code_hosts_alone(pages):
    """Nothing moves by itself on the page, whose players stand in their place."""
    for key in PARAMETERS.rungs:
        assert f"](figures/{key}/reverse.webp)" in pages.markdown
    assert "reverse.webp" not in pages.html


FILM = {
    "frames_per_second": 4,
    "start": "last",
    "scenes": [
        {"choices": {"Sampler": sampler, "Class": name}, "timesteps": [9, 5, 0], "panels": [], "sheet": sheet}
        for sampler, sheet in (("A <b>", "one.png"), ("B", "two.png"))
        for name in ("x", "y")
    ],
}


def test_a_film_gives_its_player_switches_and_a_slider(root, tmp_path):
    shutil.copytree(root, tmp_path / "filmed")
    (tmp_path / "filmed/reports/figures/moons/samples.film.json").write_text(json.dumps(FILM))
    pages = build_pages(tmp_path / "filmed", PARAMETERS)
    assert complaints_about(pages.html) == []
    page = Page(pages.html)
    inputs = [attributes for tag, attributes in page.elements if tag == "input"]
    assert [a["value"] for a in inputs if a["type"] == "radio"] == ["A <b>", "B", "x", "y"]
    (slider,) = [a for a in inputs if a["type"] == "range"]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")
    assert slider["id"] in page.all("label", "for")
    assert slider["id"] in page.all("output", "for")
    (player,) = [a for tag, a in page.elements if tag == "div" and a.get("class") == "player"]
    assert "hidden" in player
    assert player["data-sheets"] == "figures/moons/one.png figures/moons/two.png"
    (content,) = re.findall(r'<script type="application/json">(.*?)</script>', pages.html)
    assert json.loads(content) == FILM
    assert "<b>" not in content


# Numbers


def numbers_in(value):
    if isinstance(value, dict):
        return [found for part in value.values() for found in numbers_in(part)]
    if isinstance(value, list):
        return [found for part in value for found in numbers_in(part)]
    return [float(value)] if isinstance(value, int | float) else []


def measured_numbers(root):
    files = [*(root / "reports/metrics").rglob("*.json")]
    cards = [json.loads(card.read_text()) for card in (root / "models").glob("*/rung.json")]
    return numbers_in(cards) + [found for file in files for found in numbers_in(json.loads(file.read_text()))]


def shortfalls_in(root):
    found = []
    for name, rung in PARAMETERS.rungs.items():
        values = json.loads((root / f"reports/metrics/{name}.json").read_text())
        for each in checks(values, rung.quality):
            found += [number for number in (each.shortfall, each.threshold, each.multiple) if number is not None]
    return found


def test_every_measured_number_on_the_page_stands_in_an_artifact(pages, root):
    known, shown = {*measured_numbers(root), *shortfalls_in(root)}, Page(pages.html).data
    assert len(shown) > 100
    for value, text in shown:
        assert float(value) in known
        assert is_printed_form_of(text, float(value))


def test_every_number_in_the_markdown_tables_stands_in_an_artifact(pages, root):
    known = measured_numbers(root)
    cells = re.findall(r"(?<=\| )\**([−\d][^|±]*) ± ([^|*]+?)\**(?= \|)", pages.markdown)
    assert len(cells) > 50
    for text in (part.strip() for cell in cells for part in cell):
        assert any(is_printed_form_of(text, value) for value in known), text


def test_every_number_in_a_table_a_tile_or_a_list_stands_in_an_artifact_or_is_a_parameter(pages, root):
    values = PARAMETERS.model_dump(mode="json", exclude_unset=True)
    titles = "2-Wasserstein UNet2DModel SHA-256 MD5"
    assert untraced(pages.html, root, values, titles) == []
    wrong = pages.html.replace(">0.0713<", ">0.0913<", 1).replace(">614,400<", ">614,499<", 1)
    assert [found.split(" ")[0] for found in untraced(wrong, root, values, titles)] == ["0.0913", "614,499"]


def test_both_forms_print_the_same_numbers(pages):
    on_page = {text for _, text in Page(pages.html).data}
    assert {text for text in on_page if not re.search(rf"(?<![\d.]){re.escape(text)}(?![\d])", pages.markdown)} == set()


def test_other_artifacts_give_other_numbers(root, tmp_path, pages):
    shutil.copytree(root, tmp_path / "other")
    for file in (tmp_path / "other/reports/metrics").rglob("*.json"):
        values = json.loads(file.read_text())
        write_json(file, {key: value if isinstance(value, str) else value * 1.37 for key, value in values.items()})
    for card in (tmp_path / "other/models").glob("*/rung.json"):
        process = make_schedule("scaled_linear", 50, 0.002, 0.04).facts()
        changes = {"final_loss": 0.8765, "ema_half_life": 1234.5, "forward_process": process}
        write_json(card, json.loads(card.read_text()) | changes)
    before = {value for value, _ in Page(pages.html).data}
    after = {value for value, _ in Page(build_pages(tmp_path / "other", PARAMETERS).html).data}
    assert not before & after


def test_templates_state_no_measurements():
    for template in TEMPLATES.glob("*.j2"):
        prose_only = re.sub(r"\{[{%#].*?[}%#]\}|<[^>]*>|\|[-:| ]+\|", " ", template.read_text(), flags=re.DOTALL)
        assert re.findall(r".*\d.*", re.sub("SHA-256|MD5|UNet2DModel", "", prose_only)) == [], template.name


def test_options_of_training_are_told_where_they_are_on_and_only_there():
    model = load_parameters().rungs["circles"]
    plain = {"optimiser": "adamw", "ema_choice": None, "flip": False, "pairing": None}
    model = model.model_copy(update={"training": model.training.model_copy(update=plain)})
    assert about_training(model) == ""
    options = {"optimiser": "muon", "flip": True, "pairing": "optimal_transport"}
    for name, value in options.items():
        training = model.training.model_copy(update={name: value})
        text = about_training(model.model_copy(update={"training": training}))
        assert [option for option in options if f"`{option}`" in text] == [name]


@pytest.mark.parametrize("module", ["words", "metrics"])
def test_prose_states_no_measurements(module):
    tree = ast.parse((TEMPLATES.parent / f"{module}.py").read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    shown = [text for text in texts if " " in text and not text.startswith(("SHA-256", "2-Wasserstein"))]
    shown = [re.sub(r"UNet2DModel|arXiv [0-9.]+|less than 2\.7 pixels|Johnstone 1994", "", text) for text in shown]
    docstrings = [ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    assert [text for text in shown if text not in docstrings and re.search(r"\d", text)] == []


@given(st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12))
def test_numbers_are_printed_to_four_digits(value):
    assert parsed(number(value))[0] == pytest.approx(value, rel=5.01e-4)


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_deviations_are_printed_to_two_digits_and_values_to_match(value, deviation):
    text, deviation_text = with_spread(value, deviation)
    assert parsed(deviation_text)[0] == pytest.approx(deviation, rel=0.051)
    if deviation >= 1e-4:
        assert is_printed_form_of(text, value)
        assert text.partition(".")[2].__len__() == deviation_text.partition(".")[2].__len__()


def test_numbers_by_example():
    assert [number(value) for value in (0.0512, 1200.0, 3, 0.0, -0.00123, 3.1e-6)] == [
        "0.0512", "1,200", "3", "0", "−0.00123", "3.1 × 10⁻⁶",
    ]  # fmt: skip
    assert with_spread(0.06123, 0.0019) == ("0.0612", "0.0019")
    assert with_spread(412.3, 12.4) == ("412", "12")
    assert with_spread(0.5, None) == ("0.5", "")
    assert [size(length) for length in (812, 240152, 10_812_345)] == ["812 bytes", "240.2 kB", "10.8 MB"]


def test_position_between_floor_and_ceiling():
    (metric,) = metrics_of({"wasserstein_2": 0.3, "wasserstein_2_floor": 0.1, "wasserstein_2_ceiling": 0.9})
    assert metric.position(metric.samples) == 25.0
    (metric,) = metrics_of({"label_accuracy": 0.95, "label_accuracy_floor": 0.9, "label_accuracy_ceiling": 0.5})
    assert metric.position(metric.samples) == 0.0  # better than real data


def test_flat_keys_are_sorted_into_metrics_and_facts():
    values = metrics_for("points", 0) | {"new_thing": 0.4, "new_thing_floor": 0.1, "odd": 7, "odd_std": 0.5}
    metrics = metrics_of(values)
    assert [metric.key for metric in metrics][-1] == "new_thing"
    assert sorted(metric.key for metric in metrics) == [
        "first_curve_share", "new_thing", "outside_tube_share", "wasserstein_2",
    ]  # fmt: skip
    assert headline_of(metrics).key == "wasserstein_2"
    assert [fact.key for fact in facts_of(values)] == [
        "judge", "tube_radius", "sample_count", "nfe", "sampling_seeds", "odd",
    ]  # fmt: skip
    assert str(facts_of(values)[-1]) == "7 ± 0.5"


# What is missing


def test_nothing_but_parameters_gives_a_page(tmp_path):
    pages = build_pages(tmp_path, PARAMETERS)
    assert complaints_about(pages.html) == []
    assert "not measured" in pages.html
    assert "not measured" in pages.markdown


def test_a_terminal_snr_above_its_limit_is_told_with_the_remedy(root, pages):
    for chapter, told in zip(Reader(root, PARAMETERS).report().chapters, [False, True] * 3, strict=False):
        assert ("(terminal SNR 0.0063, above 0.0001)" in chapter.about[-1]) == told
    for text in (pages.html, pages.markdown):
        assert text.count("keeps 0.079 of x_0") == len(PARAMETERS.rungs) // 2
        assert "rescale_betas_zero_snr: true" in text


def test_a_loss_not_below_that_of_answering_zero_is_a_warning(root, tmp_path, pages):
    assert "nothing has been learnt" not in pages.html + pages.markdown
    shutil.copytree(root, tmp_path / "bad")
    card = tmp_path / "bad/models/moons/rung.json"
    write_json(card, json.loads(card.read_text()) | {"final_loss": 0.7312, "zero_loss": 0.7311})
    bad = build_pages(tmp_path / "bad", PARAMETERS)
    for text in (bad.html, bad.markdown):
        assert text.count("nothing has been learnt") == 1
        assert "The loss ends at 0.7312, and a network that always answers zero would have 0.7311" in text
    (chapter,) = [
        chapter for chapter in Reader(tmp_path / "bad", PARAMETERS).report().chapters if chapter.key == "moons"
    ]
    assert chapter.about[-1].startswith("**Warning: nothing has been learnt.**")


def test_missing_keys_and_nan_are_left_out(root, tmp_path):
    shutil.copytree(root, tmp_path / "holes")
    for index, file in enumerate(sorted((tmp_path / "holes/reports/metrics").rglob("*.json"))):
        values = json.loads(file.read_text())
        holes = {key: math.nan if i % 3 == index % 3 else value for i, (key, value) in enumerate(values.items())}
        file.write_text(json.dumps({key: value for i, (key, value) in enumerate(holes.items()) if i % 5 != index % 5}))
    write_json(tmp_path / "holes/models/circles/rung.json", {"parameters": 5})
    pages = build_pages(tmp_path / "holes", PARAMETERS)
    assert complaints_about(pages.html) == []
    assert not re.search(r"\b(nan|inf)\b", " ".join(Page(pages.html).texts) + pages.markdown, re.IGNORECASE)
    assert "None" not in re.sub(r"```.*?```", "", pages.markdown, flags=re.DOTALL)


def test_a_new_rung_needs_no_code(root):
    spirals = PARAMETERS.rungs["circles"].model_copy(update={"title": "Part 0: spirals"})
    rungs = {"spirals": spirals, **PARAMETERS.rungs}
    pages = build_pages(root, PARAMETERS.model_copy(update={"rungs": rungs}))
    assert complaints_about(pages.html) == []
    assert pages.markdown.index("## Part 0: spirals") < pages.markdown.index("## Part 1: circles")


# The Markdown twin


def test_markdown_links_lead_somewhere(root, tmp_path):
    shutil.copytree(root, tmp_path / "project")
    (tmp_path / "project/src").symlink_to(REPOSITORY / "src")
    reports = tmp_path / "project/reports"
    pages = build_pages(tmp_path / "project", PARAMETERS)
    (reports / "index.html").write_text(pages.html)
    (reports / "play.html").touch()  # which has an element for every rung, as its own tests see to
    write_run_page(reports / "run")
    links = re.findall(r"\]\(([^)\s]+)\)", pages.markdown) + Page(pages.html).all("a", "href")
    relative = [link for link in links if not link.startswith(("#", "https://", "http://"))]
    assert len(relative) > 20
    assert [link for link in relative if not (reports / link.split("#")[0]).exists()] == []
    to_play = [link.removeprefix("play.html#") for link in relative if link.startswith("play.html#")]
    assert to_play == [*PARAMETERS.rungs]
    assert {link.split("#")[1] for link in relative if "#" in link} - {*to_play} <= {
        attributes["id"]
        for _, attributes in Page((reports / "run/index.html").read_text()).elements
        if "id" in attributes
    }
    anchors = {link[1:] for link in re.findall(r"\]\((#[^)\s]+)\)", pages.markdown)}
    assert anchors <= set(re.findall(r'<a id="([\w-]+)"></a>', pages.markdown))


def test_markdown_tables_have_equal_rows(pages):
    text = re.sub(r"```.*?```", "", pages.markdown, flags=re.DOTALL)
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        columns = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(columns)) == 1, table


def test_prose_becomes_html():
    assert prose("a *b* `c<d` [e](#f) g & h") == 'a <em>b</em> <code>c&lt;d</code> <a href="#f">e</a> g &amp; h'


# Equations and code


def test_formulas_are_sound_in_both_notations():
    for equation in EQUATIONS_BY_KEY.values():
        for element in mathml(equation.formulas).split("\n"):
            xml.etree.ElementTree.fromstring(element)
        text = latex(equation.formulas)
        assert text.count("{") == text.count("}")
        assert len(re.findall(r"\\left\b", text)) == len(re.findall(r"\\right\b", text))
        assert equation.source.url.startswith("https://")


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_equations_follow_the_parameters(name):
    targets, makers = ("epsilon", "v_prediction", "sample"), ("", "diffusers_")
    for target, own, dropout, guidance in product(targets, makers, (0.0, 0.1), (1.0, 2.0)):
        schedule = SimpleNamespace(name=name, prediction_type=target, rescale_betas_zero_snr=False)
        schedulers = SimpleNamespace(comparison=f"{own}ddim")
        training = SimpleNamespace(ema_decay=0.9, label_dropout=dropout, loss_weight=None)
        model = SimpleNamespace(schedule=schedule, schedulers=schedulers, training=training)
        sampling = SimpleNamespace(sampler=f"{own}ddim", guidance_scale=guidance)
        keys = [equation.key for equation in equations_of(model, sampling, ["frechet_distance"])]
        assert keys[:2] == ["forward", name]
        assert ("label_dropout" in keys, "guidance" in keys) == (dropout > 0, guidance != 1)
        assert keys[-2:] == ["ddim_step", "frechet_distance"]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("rung", ["circles", "mnist_scratch", "faces"])
def test_a_network_is_told_its_class_whether_or_not_it_is_withheld(rung, conditional, dropout):
    model = PARAMETERS.rungs[rung]
    training = model.training.model_copy(update={"label_dropout": dropout * conditional})
    words = about_network(model.model_copy(update={"conditional": conditional, "training": training}))
    assert ("class" in words) == conditional
    assert ("the class is withheld" in words) == bool(conditional and dropout)


def test_copies_are_told_by_the_parameter_not_by_a_third():
    words = DESCRIPTIONS["copied_share"].words
    assert "`memorisation.ratio`" in words
    assert not re.search(r"\bthird\b|\bnine\b", words)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver", "heun"])
@pytest.mark.parametrize("weight", ["uniform", "min_snr", "p2"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_samplers_weights_and_zero_terminal_snr_have_equations_and_code(sampler, weight, rescaled):
    model = PARAMETERS.rungs["circles"]
    sampling = model.sampling.model_copy(update={"sampler": sampler})
    schedulers = model.schedulers.model_copy(update={"comparison": f"diffusers_{sampler}"})
    schedule = model.schedule.model_copy(update={"rescale_betas_zero_snr": rescaled})
    loss_weight = None if weight == "uniform" else LossWeight(name=weight, gamma=5.0)
    training = model.training.model_copy(update={"loss_weight": loss_weight})
    changes = {"schedulers": schedulers, "schedule": schedule, "training": training, "sampling": sampling}
    model = model.model_copy(update=changes)
    keys = [equation.key for equation in equations_of(model, sampling, [])]
    assert keys[-1] == f"{sampler}_step"
    assert ("zero_terminal_snr" in keys) == rescaled
    assert {"min_snr", "p2"} & set(keys) == {weight} - {"uniform"}
    code = [excerpt.key for excerpt in excerpts_of(model, sampling)]
    assert [key for key in code if key.endswith("_step")] == [f"{sampler}_step"]
    assert [key for key in code if key.endswith("_weight")] == [f"{weight}_weight"][: weight != "uniform"]


def test_an_equation_is_printed_once_and_linked_afterwards(pages):
    ids = [name for name in Page(pages.html).all("div", "id") if name.startswith("equation-")]
    assert len(ids) == len(set(ids))
    titles = re.findall(r"\*\*\((\d+)\) ", pages.markdown)
    assert titles == [str(n + 1) for n in range(len(ids))]


class WithoutDocstrings(ast.NodeTransformer):
    def visit_FunctionDef(self, node):
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        return self.generic_visit(node)


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=lambda excerpt: excerpt.key)
def test_excerpts_are_the_code_as_it_is(excerpt):
    source = source_of(excerpt)
    module = ast.parse((REPOSITORY / excerpt.path).read_text())
    for part in excerpt.name.split("."):
        module = next(node for node in module.body if getattr(node, "name", None) == part)
    found = ast.parse(source).body[0]
    assert ast.get_docstring(found) == ast.get_docstring(module).splitlines()[0]
    assert ast.dump(WithoutDocstrings().visit(found)) == ast.dump(WithoutDocstrings().visit(module))


def test_an_excerpt_that_is_gone_is_named():
    with pytest.raises(LookupError, match=r"x\.py has no A\.f"):
        function_source("class A:\n    def g(self): ...\n", "A.f", "x.py")


def test_highlighted_code_is_the_code(pages):
    shown = "".join(Page(pages.html).texts)
    used = {excerpt for rung in PARAMETERS.rungs.values() for excerpt in excerpts_of(rung, rung.sampling)}
    assert len(used) > 8
    for excerpt in EXCERPTS:
        assert (source_of(excerpt).rstrip() in shown) == (excerpt in used)
        assert (source_of(excerpt) in pages.markdown) == (excerpt in used)


# Sizes, bytes and colours


def test_the_page_stays_small_whatever_the_pictures(root, tmp_path):
    shutil.copytree(root, tmp_path / "large")
    for index, key in enumerate(PARAMETERS.rungs):
        noise = Image.frombytes("RGB", (800, 800), os.urandom(800 * 800 * 3))
        noise.save(tmp_path / f"large/reports/figures/{key}/samples.png")
        (tmp_path / f"large/reports/figures/{key}/reverse.webp").write_bytes(picture_bytes(index, animated=True))
    pages = build_pages(tmp_path / "large", PARAMETERS)
    assert len(pages.html.encode()) < 6_000_000
    assert 0 < len(pages.linked) < len(PARAMETERS.rungs)
    assert all(f'src="{path}"' in pages.html for path in pages.linked)


def is_small(reports):
    """The page below 6 MB, the live one below 4 MB, a study below 1 MB, the rest of reports/ with them below 13 MB."""
    studies = [*(reports / "studies").glob("*/")]
    limits = {reports / "index.html": 6_000_000, reports / "play.html": 4_000_000} | dict.fromkeys(studies, 1_000_000)
    rest = size_of(reports) - sum(map(size_of, studies))
    return all(size_of(path) < most for path, most in limits.items()) and rest < 13_000_000


def size_of(path):
    """The bytes of a file, or of all files in a folder."""
    return sum(each.stat().st_size for each in (path, *path.rglob("*")) if each.is_file())


def test_the_report_in_this_repository_is_small():
    assert is_small(REPOSITORY / "reports")


def test_the_report_of_the_smoke_graph_is_small(smoke):
    assert is_small(smoke / "reports")


def test_pictures_are_embedded_as_far_as_there_is_room(root):
    pictures = Reader(root, PARAMETERS).report().pictures
    room = sum(picture.embedded_length for picture in pictures[:3])
    assert embedded_pictures(pictures, room) == {picture.path for picture in pictures[:3]}


BUILD = """
import sys
from pathlib import Path
from diffusion_ladder.params.whole import load_parameters
from diffusion_ladder.report.page import build_pages
from diffusion_ladder.report.pictures import embedded_pictures
pages = build_pages(Path(sys.argv[1]), load_parameters(sys.argv[2]))
sys.stdout.reconfigure(encoding="utf-8")
print(pages.html + pages.markdown, end="")
"""


def test_two_processes_in_two_places_give_the_same_bytes(root, tmp_path, pages):
    shutil.copytree(root, tmp_path / "elsewhere" / "moved")
    for seed, place in (("1", root), ("2", tmp_path / "elsewhere" / "moved")):
        command = [sys.executable, "-c", BUILD, str(place), str(REPOSITORY / "params.yaml")]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONHASHSEED": seed}
        built = subprocess.run(command, capture_output=True, check=True, env=environment, cwd=tmp_path)
        assert built.stdout.decode("utf-8") == pages.html + pages.markdown


def colours(scheme):
    css = (TEMPLATES / "style.css").read_text()
    light, dark = css.split("prefers-color-scheme: dark")[0], css.split("prefers-color-scheme: dark")[1].split("}")[0]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return found | (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark)) if scheme == "dark" else {})


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_meets_wcag_aa(scheme):
    palette = colours(scheme)
    texts = ("ink", "muted", "accent", "warm", "keyword", "string", "comment", "name", "literal")
    for text, ground in product(texts, ("paper", "card", "faint")):
        lighter, darker = sorted((luminance(palette[text]), luminance(palette[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, f"{text} on {ground}, {scheme}"


# Where it comes from


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """The invented artifacts in a folder that has the project's code and lists, too."""
    folder = tmp_path_factory.mktemp("whole") / "project"
    shutil.copytree(root, folder)
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", "requirements.txt"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("src", "stages"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


def test_the_provenance_names_versions_of_the_lock_seeds_and_circumstances(project):
    card = project / "models/faces/rung.json"
    circumstances = {"device": "cuda", "precision": "bf16", "threads": 3}
    write_json(card, json.loads(card.read_text()) | {"computed_with": circumstances})
    pages = build_pages(project, PARAMETERS)
    assert complaints_about(pages.html) == []
    page = " ".join(" ".join(Page(pages.html).texts).split())
    for text in (page, pages.markdown):
        assert "torch 2.13.0" in text
        assert re.search(r"Trained with cuda, bf16, 3 threads:? Part 3", text)
        assert "train / rung.model / noise / step" in text
        assert re.search(r"weights: models/faces `?[0-9a-f]{32}\.dir", text)
    assert provenance_of(project, PARAMETERS).seed == PARAMETERS.seed


def test_studies_have_a_chapter_and_recipes_a_table_of_their_own(root, tmp_path):
    shutil.copytree(root, tmp_path / "project")
    for name, heading in (("brief", None), ("recipe", "What helps at this budget")):
        values = {"plain": [0.10, 0.11, 0.12], "good": [0.05, 0.051, 0.052]}
        found = results_of(values, study=name, heading=heading, question=f"Is {name} <b>?")
        folder = tmp_path / "project/reports/studies" / name
        write_json(folder / "results.json", found)
        write_study(folder, found, {})
        assert complaints_about((folder / "index.html").read_text()) == []
    pages = build_pages(tmp_path / "project", PARAMETERS)
    assert complaints_about(pages.html) == []
    for text in (pages.html, pages.markdown):
        assert (
            text.count(
                "*good* is better than plain" if text is pages.markdown else "<em>good</em> is better than plain"
            )
            == 2
        )
        assert text.index("Is brief") < text.index("What helps at this budget") < text.index("Is recipe")
        assert text.count("0.1100 ± 0.0100") + text.count("0.110 ± 0.010") == 1  # the recipe's table alone
    assert 'href="studies/brief/index.html"' in pages.html
    assert "](studies/brief/README.md)" in pages.markdown
    assert "](studies/brief/quality.png)" in pages.markdown


def test_figures_of_several_rungs_stand_across_the_rungs(root, tmp_path):
    shutil.copytree(root, tmp_path / "project")
    folder = tmp_path / "project/reports/across"
    folder.mkdir()
    (folder / "pairs.png").write_bytes(picture_bytes(99))
    write_json(folder / "captions.json", [{"file": "pairs.png", "title": "Pairs", "caption": "C", "alt": "A"}])
    pages = build_pages(tmp_path / "project", PARAMETERS)
    assert complaints_about(pages.html) == []
    assert (
        pages.html.index('id="across"')
        < pages.html.index('href="across/pairs.png"')
        < pages.html.index('id="schedulers"')
    )
    assert "**Pairs.** C `dvc repro -s -f report`" in pages.markdown


def test_every_line_of_the_graph_leads_downwards_and_every_stage_has_its_box(project):
    stages = provenance_of(project, PARAMETERS).stages
    picture = xml.etree.ElementTree.fromstring(str(drawing(stages)))
    texts = [element.text.split(" ×")[0] for element in picture.iter("text")]
    assert sorted(texts) == sorted(stage.name for stage in stages)
    boxes = [tuple(float(box.get(name)) for name in ("x", "y", "width", "height")) for box in picture.iter("rect")]
    for (x, y, width, height), (left, top, *_) in product(boxes, boxes):
        assert (x, y) == (left, top) or not (x <= left < x + width and y <= top < y + height)  # none covers another
    lines = [[float(part) for part in re.findall(r"[\d.]+", path.get("d"))] for path in picture.iter("path")]
    assert len(lines) == sum(len(stage.needs) for stage in stages)
    assert all(numbers[1] < numbers[-1] for numbers in lines)


def test_descriptions_of_loops_say_what_they_go_over():
    words = {stage.name: stage.words for stage in read_stages(REPOSITORY) if stage.count}
    of_data = {"fetch", "preprocess", "render_data", "train_classifier"}
    for name, text in words.items():
        assert ("each data set" in text, "each rung" in text) == (name in of_data, name not in of_data)
    assert words["train"] == "Train each rung"


# Model cards


def test_model_cards_are_read_by_the_hubs_own_library_and_hold_the_metrics(pages, root):
    assert list(pages.cards) == list(PARAMETERS.rungs)
    for key, text in pages.cards.items():
        card = huggingface_hub.ModelCard(text)
        measured = json.loads((root / f"reports/metrics/{key}.json").read_text())
        results = {result.metric_type: result.metric_value for result in card.data.eval_results}
        assert results == {name: measured[name] for name in results}
        assert set(results) == {metric.key for metric in metrics_of(measured)}
        assert card.data.license == "mit"
        assert card.data.library_name == (
            "diffusers" if "diffusers" in PARAMETERS.rungs[key].network.name else "pytorch"
        )
        assert card.data.datasets == [PARAMETERS.rungs[key].dataset]
        assert f"# {PARAMETERS.rungs[key].title}\n" in card.text
        kind = "class-conditional" if PARAMETERS.rungs[key].conditional else "unconditional"
        assert all(result.task_type.startswith(kind) for result in card.data.eval_results)
        assert ("unconditional" in card.data.to_yaml()) == (kind == "unconditional")


def test_model_cards_lie_beside_the_weights_without_changing_their_hash(project, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, symlinks=True)
    before = md5_of_output("models/faces", folder)
    for key, text in build_pages(folder, PARAMETERS).cards.items():
        (folder / CARDS / key).mkdir(parents=True)
        (folder / CARDS / key / "README.md").write_text(text)
    assert len(place_cards(folder)) == len(PARAMETERS.rungs)
    assert (folder / "models/faces/README.md").read_text().startswith("---\n")
    assert md5_of_output("models/faces", folder) == before
    (folder / "models/faces/rung.json").write_text("{}")
    assert md5_of_output("models/faces", folder) != before


# The page about the last run

RECORD = {
    "seconds": 12.5,
    "finished": "2031-05-04T03:02:01Z",
    "peak_memory_mib": 640.5,
    "device": "cpu",
    "device_name": "A <processor>",
    "threads": 2,
}


def test_run_page_shows_every_record(tmp_path):
    for stage, seconds in (("fetch@circles", 12.5), ("train@circles", 37.5)):
        finished = f"2031-05-04T03:02:{seconds:02.0f}Z"
        write_json(tmp_path / f"{stage}.json", RECORD | {"stage": stage, "seconds": seconds, "finished": finished})
    (tmp_path / "broken.json").write_text('{"stage": ')
    (tmp_path / "list.json").write_text("[]")
    text = write_run_page(tmp_path).read_text()
    assert complaints_about(text) == []
    words = " ".join(Page(text).texts)
    assert all(part in words for part in ("fetch@circles", "train@circles", "50.0 s", "A <processor>", "03:02:12"))
    assert [bar["left"] for bar in bars_of(read_records(tmp_path))] == [0.0, 25.0]
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "train@circles.json"  # nothing temporary is left


def test_run_page_says_that_nothing_was_run(tmp_path):
    text = write_run_page(tmp_path / "not" / "there").read_text()
    assert complaints_about(text) == []
    assert "nothing has been run" in text


def test_run_page_with_records_that_say_little():
    assert complaints_about(run_page([{"stage": "a", "seconds": 0}, {"stage": "b", "seconds": 0, "threads": 2}])) == []


def test_run_page_tells_what_one_sample_and_one_example_cost():
    work = {"example trained on": {"count": 4000, "seconds": 10.0}, "sample by ddpm": {"count": 8, "seconds": 2.0}}
    text = run_page([{"stage": "train@circles", "seconds": 12.0, "work": work}])
    assert complaints_about(text) == []
    words = " ".join(" ".join(Page(text).texts).split())
    assert "train@circles example trained on 4,000 2.5" in words
    assert "train@circles sample by ddpm 8 250" in words


def commit(folder, **metrics):
    for name, values in metrics.items():
        write_json(folder / f"reports/metrics/{name}.json", values)
    for command in (["add", "-A"], ["-c", "user.name=N", "-c", "user.email=n@example.org", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return changes_since(folder)


def told(changes):
    return [(change.file, change.name, change.before, change.now, change.is_large) for change in changes.changes]


def test_run_page_compares_with_the_last_commit_that_has_other_metrics(tmp_path):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert changes_since(tmp_path).since == ""
    first = commit(tmp_path, a={"x": 1.0, "x_std": 0.2, "gone": 3, "judge": "a text"}, b={"y": 5.0})
    assert first.since == ""
    assert first.commit
    now = {"x": 1.1, "x_std": 0.3, "new": 4, "judge": "another"}
    write_json(tmp_path / "reports/metrics/a.json", now)  # not committed: beside the present commit
    differing = [("a", "gone", 3, None, False), ("a", "new", None, 4, False), ("a", "x", 1.0, 1.1, False)]
    built = changes_since(tmp_path)
    assert (built.since, built.edited, told(built)) == (first.commit, True, differing)
    committed = commit(tmp_path, a=now)  # committed: beside the commit before
    assert (committed.since, committed.edited, told(committed)) == (first.commit, False, differing)
    (tmp_path / "text").write_text("a commit that changes no metrics")
    assert told(commit(tmp_path)) == differing
    last = commit(tmp_path, b={"y": 5.5})
    assert told(last) == [("b", "y", 5.0, 5.5, True)]
    page = run_page([], last)
    assert complaints_about(page) == []
    assert all(part in " ".join(Page(page).texts) for part in (last.commit, last.since, "0.5"))


def test_durations():
    assert [duration(seconds) for seconds in (0.04, 59.94, 125, 3600, 7384)] == [
        "0.0 s", "59.9 s", "2 min 05 s", "1 h 00 min", "2 h 03 min",
    ]  # fmt: skip


def test_run_page_needs_no_heavy_library(tmp_path):
    check = "import sys, diffusion_ladder.report.run_page as p; p.write_run_page(); print(*sorted(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    command = [sys.executable, "-c", check]
    found = subprocess.run(command, capture_output=True, check=True, env=environment, cwd=tmp_path, text=True).stdout
    assert {"torch", "numpy", "PIL", "pydantic", "pygments"} & set(found.split()) == set()
    assert (tmp_path / "reports/run/index.html").is_file()
