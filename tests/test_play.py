"""The live page: its networks and samplers held against Python in a real browser, and the page as people use it.

The networks are small ones with fresh weights, as float16 has them on both sides; the page is opened from the disk.
"""

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from scipy import stats

from diffusion_ladder.data.normalise import IMAGES, Normalisation
from diffusion_ladder.diffusion.exact import data_set_x0, prediction_of
from diffusion_ladder.diffusion.timesteps import spaced_timesteps
from diffusion_ladder.forward_process import forward_process
from diffusion_ladder.foundation.artifacts import write_tensors
from diffusion_ladder.foundation.section import load_yaml, merge
from diffusion_ladder.params.samplers import SAMPLERS
from diffusion_ladder.params.sampling import Sampling
from diffusion_ladder.params.whole import validate
from diffusion_ladder.play import models as play_models
from diffusion_ladder.play.page import SMALL_BYTES, Selection, build_page, read_candidates, selected
from diffusion_ladder.rungs import Rung, build_network, load_rung, save_rung
from diffusion_ladder.sampling.guidance import guided
from diffusion_ladder.sampling.loop import reverse_process, sampler_for

pytestmark = pytest.mark.browser
SMALL = {"block_out_channels": [8, 16], "attention_head_size": 8, "norm_groups": 4, "time_embedding_size": 16}
SHAPES = {"circles": (2,), "moons": (2,), "mnist_scratch": (1, 12, 12), "faces": (3, 16, 16)}
CLASSES = {"circles": 0, "moons": 2, "mnist_scratch": 10, "faces": 2}
STEPS = 6


def small_parameters():
    """Those of four rungs, with networks that are made in no time and know nothing; the moons' know classes."""
    values = load_yaml("params.yaml")
    values["rungs"] = {key: values["rungs"][key] for key in SHAPES}
    mlp = {"hidden_size": 16, "hidden_layers": 2, "time_embedding_size": 8, "zero_init": False}
    networks = {"circles": mlp, "moons": mlp}
    networks["mnist_scratch"] = SMALL | {"zero_init": False, "scale_shift": False}
    networks["faces"] = SMALL | {"zero_init": False, "attention_levels": [False, True]}
    for key, network in networks.items():
        block = {"network": network, "sampling": {"steps": STEPS}, "training": {}}
        values["rungs"][key] = merge(values["rungs"][key], block)
    values["rungs"]["moons"] |= {"conditional": True}
    return validate(values)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the trained rungs, which nobody has trained, and with points."""
    folder = tmp_path_factory.mktemp("play")
    for key, rung in small_parameters().rungs.items():
        shape, classes = SHAPES[key], CLASSES[key]
        network = build_network(rung.network, shape, classes + 1 if classes else None, 0, key)
        normalisation = IMAGES if len(shape) == 3 else Normalisation((0.1, -0.2), (0.9, 1.1), bytes=False)
        what = (network, rung.network, rung.schedule, shape, classes, classes or None, normalisation)
        trained = Rung(key, rung.dataset, *what)
        names = [f"class {number}" for number in range(classes)]
        save_rung(trained, folder / "models" / key, {"class_names": names}, {})
        numbers = torch.Generator().manual_seed(len(key))
        data = {"train": torch.randn(300, 2, generator=numbers), "train_labels": torch.arange(300) % 2}
        write_tensors(folder / f"data/processed/{rung.dataset}.safetensors", data, {})
    return folder


@pytest.fixture(scope="module")
def candidates(root):
    return read_candidates(small_parameters().rungs, root)


@pytest.fixture(scope="module")
def file(candidates, root):
    """The page, on the disk."""
    path = root / "play.html"
    path.write_text(build_page(selected(candidates, SMALL_BYTES, "elsewhere"), "index.html"), encoding="utf-8")
    return path


@pytest.fixture
def visit(chromium, file):
    """Opens the page from the disk, with no network; nothing may go wrong, and nothing else be asked for."""
    contexts, wrong, asked = [], [], []

    def opened(fragment="", **options):
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.set_default_timeout(120_000)  # of a machine that does other things, too
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri() + fragment, wait_until="load")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("data:", "blob:", file.as_uri()))] == []


@pytest.fixture(scope="module")
def engine(chromium, file):
    """Evaluates an expression with the page's engine, in the page: `models` are those of the page, ready for use."""
    page = chromium.new_page()
    page.goto(file.as_uri())
    page.evaluate(
        """() => {
          const names = ["modelOf", "SAMPLERS", "guided", "spacedTimesteps", "half", "normals", "score", "Matrices",
                         "bytesOf"];
          window.engine = new Function(`${textOf("engine")}; return { ${names} }`)();
          window.ready = Object.fromEntries(Object.entries(models).map(([key, { shapes, ...model }]) => {
            const data = document.getElementById(`data-${key}`)?.textContent;
            const weights = { shapes, values: textOf(`weights-${key}`) };
            return [key, engine.modelOf({ ...model, data, weights }, textOf("kernel"))];
          }));
        }"""
    )
    yield lambda body, argument=None: page.evaluate(body, argument)
    page.close()


WALK = """({ key, sampler, settings, type, x, noises, label, scale, interval, steps, eta }) => {
  const { network, process } = ready[key], T = process.alphaBar.length, { nullLabel } = models[key];
  const numbers = values => Float32Array.from(values), replay = noises.map(numbers);
  const states = engine.SAMPLERS[sampler]({
    x: numbers(x), steps, eta, noise: () => replay.shift(),
    predict: engine.guided(network, { label, nullLabel, scale, interval, T }),
    process: { ...process, ...settings, prediction_type: type ?? process.prediction_type },
  });
  return [...states].map(({ t, x_t, x_0, x }) => [t, [...x_t], [...x_0], [...x]]);
}"""


def half_precision(rung):
    """The rung with its weights rounded to float16, as the page has them."""
    rung.network.half().float()
    return rung


def in_python(rung, name, settings, label, generators):
    """x_T (B, ...), the noise (steps, B, ...) that a stochastic sampler is given on its way, and the states."""
    count, shape = len(generators), rung.sample_shape
    x_T = torch.stack([torch.randn(shape, generator=each) for each in generators])
    copies = [torch.Generator().set_state(each.get_state()) for each in generators]
    noises = torch.stack(
        [torch.cat([torch.randn(1, *shape, generator=each) for each in copies]) for _ in range(settings.steps)]
    )
    labels = torch.full((count,), label) if rung.num_classes else None
    scheduler, options = sampler_for(name, rung, settings, settings.steps)
    with torch.no_grad():
        predict = guided(rung, labels, settings, torch.float32)
        states = list(reverse_process(predict, scheduler, x_T, generators, **options))
    return x_T, noises, states


def compare(engine, rung, name, settings, label, count, tolerance):
    """Holds every state in the browser against Python's."""
    generators = [torch.Generator().manual_seed(number) for number in range(count)]
    x_T, noises, expected = in_python(rung, name, settings, label, generators)
    found = engine(
        WALK,
        {
            "key": rung.model,
            "sampler": name,
            "settings": settings.model_dump(include={"spacing", "variance_type", "clip_sample"}),
            "type": rung.schedule.prediction_type,
            "x": x_T.flatten().tolist(),
            "noises": noises.flatten(1).tolist(),
            "label": label,
            "scale": settings.guidance_scale,
            "interval": settings.guidance_interval or [0, 1],
            "steps": settings.steps,
            "eta": settings.eta,
        },
    )
    assert len(found) == len(expected)
    for state, (t, *tensors) in zip(expected, found, strict=True):
        assert t == state.timestep
        for ours, theirs in zip((state.x_t, state.x_0, state.previous), tensors, strict=True):
            np.testing.assert_allclose(theirs, ours.flatten(), rtol=1e-4, atol=tolerance)


def sampling(**changes):
    values = load_yaml("params.yaml")
    merged = values["every_rung"]["sampling"] | values["rungs"]["circles"]["sampling"]
    return Sampling.model_validate(merged | {"steps": STEPS} | changes)


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_points_walk_as_in_python(engine, root, name, spacing):
    rung = half_precision(load_rung(root / "models/circles"))
    for prediction_type in ("epsilon", "v_prediction", "sample"):
        schedule = rung.schedule.model_copy(update={"prediction_type": prediction_type})
        for changes in ({}, {"eta": 0.7, "variance_type": "fixed_large", "clip_sample": True}):
            settings = sampling(spacing=spacing, steps=7, **changes)
            compare(engine, replace(rung, schedule=schedule), name, settings, 0, count=5, tolerance=1e-3)


@pytest.mark.parametrize("key", ["moons", "mnist_scratch", "faces"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_classes_guidance_and_pictures_are_as_in_python(engine, root, key, scale):
    """Pictures within a grey level, 2 / 255; both kinds of U-Net, with the time used both ways."""
    rung = half_precision(load_rung(root / f"models/{key}"))
    for interval in (None, [0.3, 0.8]):
        settings = sampling(guidance_scale=scale, spacing="linspace", guidance_interval=interval)
        compare(engine, rung, "dpm_solver", settings, 1, count=3 if key == "moons" else 1, tolerance=1e-3)


@pytest.mark.parametrize("T", [1000, 137])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_the_timesteps_are_those_of_python(engine, T, spacing):
    found = engine(
        "([...all]) => all.map(each => engine.spacedTimesteps(...each))", [[spacing, T, n] for n in range(1, 101)]
    )
    assert found == [spaced_timesteps(spacing, T, steps).tolist() for steps in range(1, 101)]


def test_the_exact_score_is_that_of_python(engine, root, candidates):
    places = torch.randn(20, 2, generator=torch.Generator().manual_seed(3))
    script = """({ places, t, label, scale }) =>
      [...engine.score(ready.moons,
        { t, label, scale, isExact: true, places: Float32Array.from(places) })]"""
    rung = load_rung(root / "models/moons")
    alpha_bars = forward_process(rung.schedule).alpha_bar
    model = next(model for model in candidates.models if model.key == "moons")
    data = torch.tensor(np.frombuffer(base64.b64decode(model.data), np.float16)).reshape(-1, 2)
    for t, label, part in ((0, 2, slice(None)), (300, 1, slice(1, None, 2)), (999, 0, slice(None, None, 2))):
        alpha_bar = alpha_bars[t].item()
        best = data_set_x0(places.double(), alpha_bar, data[part].double())
        expected = -prediction_of("epsilon", best, places.double(), alpha_bar) / (1 - alpha_bar) ** 0.5
        argument = {"places": places.flatten().tolist(), "t": t, "label": label, "scale": 1}
        np.testing.assert_allclose(engine(script, argument), expected.flatten(), rtol=1e-4, atol=1e-3)


def test_halves_are_those_of_numpy(engine):
    bits = np.array([n for n in range(1 << 16) if (n >> 10) & 31 != 31], dtype=np.uint16)
    found = engine("bits => bits.map(engine.half)", bits.tolist())
    np.testing.assert_array_equal(found, bits.view(np.float16).astype(np.float64))


def test_the_kernel_multiplies_as_plain_javascript_and_numpy_do(engine):
    left, right = np.random.default_rng(0).standard_normal((2, 24 * 40)).astype(np.float32)
    script = """({ left, right, kernel }) => {
      const matrices = new engine.Matrices(4096, kernel && engine.bytesOf(textOf("kernel")));
      const [A, B, C] = [24 * 40, 40 * 24, 24 * 24].map(count => matrices.allocate(count));
      A.set(left), B.set(right), C.fill(1);
      matrices.multiply(A, B, C, 24, 40, 24);
      return [...C];
    }"""
    expected = 1 + left.reshape(24, 40).astype(float) @ right.reshape(40, 24)
    for kernel in (True, False):
        argument = {"left": left.tolist(), "right": right.tolist(), "kernel": kernel}
        np.testing.assert_allclose(engine(script, argument), expected.flatten(), rtol=1e-5, atol=1e-5)


def test_noise_is_standard_normal_and_each_sample_has_its_own(engine):
    script = """seeds => seeds.map(([seed, number]) => {
      const next = engine.normals(seed, number);
      return Array.from({ length: 4000 }, next);
    })"""
    draws = np.array(engine(script, [[0, 0], [0, 1], [1, 0], [0, 0]]))
    assert (draws[0] == draws[3]).all()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(draws[first], draws[second])[0, 1]) < 0.06
    assert abs(np.corrcoef(draws[0][1:], draws[0][:-1])[0, 1]) < 0.06
    assert stats.kstest(draws[:3].flatten(), "norm").pvalue > 0.001
    firsts = [values[0] for values in engine("all => all.map(n => [engine.normals(5, n)()])", list(range(2000)))]
    assert stats.kstest(firsts, "norm").pvalue > 0.001


def settled(page, kind):
    """Waits until a stage has done what it was asked for."""
    words = {"points": "evaluation", "pictures": "picture"}[kind]
    page.wait_for_function(
        "([kind, words]) => { const said = document.querySelector(`#${kind} .status`).textContent;"
        " return said.includes(words) && !said.includes('…'); }",
        arg=[kind, words],
    )


def drawn(page, selector):
    return page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")


def until_other(page, selector, before):
    """Waits until a canvas shows something else, and says what."""
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).toDataURL() !== before", arg=[selector, before]
    )
    return drawn(page, selector)


def test_the_keyboard_moves_the_point_time_and_the_samplers(visit):
    page = visit()
    settled(page, "points")
    page.locator("#points-time").press("End")
    assert page.locator("#points output[for=points-time]").inner_text() == "t = 0"
    page.wait_for_function("document.querySelector('.error').textContent.includes('% off')")
    page.locator("canvas.learnt").focus()
    before = drawn(page, "canvas.learnt")
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert page.locator("#place").inner_text() == "The green point starts at (-1.75, 1.35)."
    until_other(page, "canvas.learnt", before)
    page.locator("#points input[value=ddim]").focus()
    assert page.locator("#points-eta").is_disabled()
    page.keyboard.press("Space")
    settled(page, "points")
    assert page.locator("#points .status").inner_text().startswith(f"DDIM: {STEPS} evaluations")
    assert page.locator("#points-eta").is_enabled()
    page.locator("#points-steps").press("ArrowRight")
    page.wait_for_function(f"document.querySelector('#points .status').textContent.includes('{STEPS + 1} evaluations')")
    page.locator("#points input[value=heun]").press("Space")
    page.wait_for_function(f"document.querySelector('#points .status').textContent.includes('Heun: {2 * STEPS + 1} ')")


def test_another_network_brings_its_classes_and_guidance(visit):
    page = visit("#moons")
    settled(page, "points")
    assert page.locator("#points input[value=moons]").is_checked()
    assert page.locator("#points-scale").is_visible()
    classes = page.locator("#points fieldset[data-classes-of=moons] label")
    assert [label.inner_text().strip() for label in classes.all()] == ["class 0", "class 1", "any"]
    assert not page.locator("#points fieldset[data-classes-of=circles]").count()
    page.locator("#points-time").press("End")
    page.wait_for_function("document.querySelector('.error').textContent.includes('% off')")
    before = drawn(page, "canvas.learnt")
    classes.nth(1).click()
    settled(page, "points")
    until_other(page, "canvas.learnt", before)
    page.locator("#points input[value=circles]").focus()
    page.keyboard.press("Space")
    settled(page, "points")
    assert not page.locator("#points-scale").is_visible()


@pytest.mark.parametrize("touch", [False, True])
def test_the_point_is_dragged(visit, touch):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=touch, is_mobile=touch, reduced_motion="reduce")
    settled(page, "points")
    canvas = page.locator("canvas.learnt")
    canvas.scroll_into_view_if_needed()
    box, before = canvas.bounding_box(), drawn(page, "canvas.learnt")
    place = lambda x, y: (box["x"] + box["width"] * (1 + x / 2.9) / 2, box["y"] + box["height"] * (1 - y / 2.9) / 2)  # noqa: E731
    if touch:
        page.touchscreen.tap(*place(1, -1))
    else:
        page.mouse.move(*place(-1.5, 1.3))
        page.mouse.down()
        for share in (0.5, 1):
            page.mouse.move(*place(-1.5 + 2.5 * share, 1.3 - 2.3 * share))
        page.mouse.up()
    x, y = map(float, re.search(r"\((.*), (.*)\)", page.locator("#place").inner_text()).groups())
    assert abs(x - 1) < 0.03
    assert abs(y + 1) < 0.03
    until_other(page, "canvas.learnt", before)


def test_pictures_are_drawn_one_after_the_other_and_time_goes_back(visit):
    page = visit()
    page.locator(".gallery").scroll_into_view_if_needed()
    settled(page, "pictures")
    assert page.locator(".gallery figure").count() == 10
    captions = [caption.inner_text() for caption in page.locator(".gallery figcaption").all()]
    assert captions == [f"class {number}" for number in range(10)]
    assert page.locator("progress").evaluate("bar => [bar.value, bar.max]") == [10 * STEPS] * 2
    noisy, clean = ".gallery canvas:nth-of-type(1)", ".gallery canvas:nth-of-type(2)"
    assert drawn(page, noisy) == drawn(page, clean)  # at the end there is no noise
    end = drawn(page, noisy)
    page.locator("#pictures-time").press("Home")
    assert page.locator("output[for=pictures-time]").inner_text() == "t = 1000"
    assert len({drawn(page, noisy), drawn(page, clean), end}) == 3
    page.locator("#pictures input[value=faces]").focus()
    page.keyboard.press("Space")
    settled(page, "pictures")
    colours = page.locator(noisy).first.evaluate("canvas => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data]")
    assert len({*colours[:3]}) > 1


def test_a_picture_is_the_same_whatever_is_drawn_beside_it(visit):
    page = visit()
    page.locator(".gallery").scroll_into_view_if_needed()
    settled(page, "pictures")
    first = drawn(page, ".gallery figure:nth-child(3) canvas")
    page.locator("#pictures-count").evaluate("input => (input.value = 3)")
    page.locator("button.draw").click()
    page.wait_for_function("document.querySelectorAll('.gallery figure').length === 3")
    settled(page, "pictures")
    assert drawn(page, ".gallery figure:nth-child(3) canvas") == first


def test_the_page_answers_while_it_works(visit):
    """What a control does is seen before the work that was begun earlier has come to its end."""
    page = visit(reduced_motion="reduce")
    for name, value in (("count", 20), ("steps", 100)):
        page.locator(f"#pictures-{name}").evaluate("(input, value) => (input.value = value)", value)
    page.locator("button.draw").click()
    seen = set()
    for _ in range(10):
        page.locator("#pictures-scale").press("ArrowRight")
        shown = page.locator("#pictures output[data-of=scale]").inner_text()
        done, whole = page.locator("progress").evaluate("bar => [bar.value, bar.max]")
        assert whole == 2000
        if done < whole:
            seen.add(shown)
    assert len(seen) > 3


def test_without_scripts_the_page_says_what_it_would_show(visit):
    page = visit(java_script_enabled=False)
    assert "2 networks would walk" in page.locator("noscript").inner_text()
    assert not any(stage.is_visible() for stage in page.locator(".stage").all())
    assert page.locator("#try li").count() == 3


def test_the_page_fits_a_phone_a_tablet_and_a_desk(visit):
    page = visit(reduced_motion="reduce")
    settled(page, "points")
    for width in (360, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(visit, scheme):
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    settled(page, "points")
    page.locator(".gallery").scroll_into_view_if_needed()
    settled(page, "pictures")
    found = Axe().run(page).response
    assert {"color-contrast", "label", "heading-order"} <= {rule["id"] for rule in found["passes"]}
    assert [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in found["violations"]] == []


def test_equal_networks_give_equal_pages(candidates, root, file):
    again = build_page(
        selected(read_candidates(small_parameters().rungs, root), SMALL_BYTES, "elsewhere"), "index.html"
    )
    assert again == file.read_text(encoding="utf-8")


def test_the_page_in_git_stays_under_four_megabytes():
    empty = build_page(Selection([], []), "index.html")
    assert len(empty.encode()) + SMALL_BYTES < 4_000_000


def test_what_does_not_fit_is_named_with_its_reason(candidates):
    sizes = {model.key: model.size for model in candidates.models}
    room = sizes["circles"] + sizes["moons"] + sizes["mnist_scratch"]
    kept = selected(candidates, room, "look elsewhere")
    assert [model.key for model in kept.models] == ["circles", "moons", "mnist_scratch"]
    assert [key for key, *_ in kept.left_out] == ["faces"]
    page = build_page(kept, "index.html")
    assert all(page.count(f' id="{key}"') == 1 for key in SHAPES)  # where the report's links lead
    assert re.search(r'<li id="faces"><b>Part 3.*</b>: its .* MB of weights .*: look elsewhere\.</li>', page)


def test_what_cannot_run_is_named_with_its_reason(root, monkeypatch):
    values = small_parameters().rungs
    thresholded = values["faces"].sampling.model_copy(update={"thresholding": {"ratio": 0.99, "max_value": 2}})
    rungs = values | {"faces": values["faces"].model_copy(update={"sampling": thresholded})}
    monkeypatch.setattr(play_models, "MOST_SECONDS", 1e-6)
    found = read_candidates(rungs, root)
    assert found.models == []
    reasons = {key: reason for key, _, reason in found.left_out}
    assert "thresholded" in reasons["faces"]
    assert "seconds of one processor core" in reasons["mnist_scratch"]


def test_work_is_counted_in_flops(candidates):
    """Of the points' network by hand: 2 for each weight, but for those of the biases and norms."""
    model = next(model for model in candidates.models if model.key == "circles")
    matrices = [np.prod(shape) for _, shape in model.settings["shapes"] if len(shape) == 2]
    assert model.flops == 2 * sum(matrices)


def test_every_sampler_of_the_table_is_in_the_page(engine):
    assert sorted(engine("() => Object.keys(engine.SAMPLERS)")) == sorted(SAMPLERS)
