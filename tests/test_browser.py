"""The report in a real browser: its players, both colour schemes, a phone, paper, and no scripts at all.

One Chromium and one built page (that of the smoke graph) serve all tests.
"""

import http.server
from contextlib import contextmanager
from functools import partial

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import PROJECT, need, serving

pytestmark = pytest.mark.browser
PAGES = ("index.html", "run/index.html")
FILMS = "figure.film:has(input[type=range])"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_missing_browser_is_a_failure_in_ci_and_a_skip_elsewhere():
    with pytest.raises(AssertionError, match="apt-get install -y chromium"):
        need(None, in_ci=True)
    with pytest.raises(pytest.skip.Exception, match="apt-get install -y chromium"):
        need(None, in_ci=False)


@pytest.fixture(scope="module")
def address(smoke):
    with serving(partial(Quiet, directory=smoke / "reports")) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def visit(chromium, address):
    """Opens a page in a context of its own, and sees to it that nothing goes wrong and nothing else is asked for."""

    @contextmanager
    def opened(path="index.html", **options):
        context = chromium.new_context(**options)
        page, wrong, asked = context.new_page(), [], []
        page.set_default_timeout(120_000)  # of a machine that does other things, too
        page.on("console", lambda message: wrong.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        try:
            page.goto(f"{address}/{path}", wait_until="load")
            yield page
            assert wrong == []
            assert [url for url in asked if not url.startswith("data:")] == [f"{address}/{path}"]
        finally:
            context.close()

    return opened


def drawn(film):
    """What the canvases of a player show."""
    return film.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")


def frame(film):
    slider = film.locator("input[type=range]")
    return int(slider.input_value()), int(slider.get_attribute("max"))


def test_pages_fit_a_phone_a_tablet_and_a_desk(visit):
    for path in PAGES:
        with visit(path) as page:
            for width in (360, 768, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} at {width} pixels"


def test_every_figure_loads(visit):
    with visit() as page:
        images = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
        assert len(images) > 20
        assert all(images)
        assert page.locator("math msqrt").first.bounding_box()["height"] > 0


def test_every_slider_moves_its_film(visit):
    """By the keyboard; for the forward and for the reverse process of each of five rungs."""
    with visit() as page:
        films = page.locator(FILMS).all()
        assert len(films) == 2 * 5
        for film in films:
            slider, output = film.locator("input[type=range]"), film.locator("output")
            slider.focus()
            seen = set()
            for key in ("Home", "ArrowRight", "End"):
                page.keyboard.press(key)
                assert slider.get_attribute("aria-valuetext") == output.inner_text()
                seen.add((output.inner_text(), *drawn(film)))
            assert len(seen) == 3
            assert len({shown for _, *all_shown in seen for shown in all_shown}) >= 3
            assert frame(film)[0] == frame(film)[1]
            assert film.evaluate("figure => figure.scrollWidth <= figure.clientWidth")


def test_the_forward_process_runs_to_noise_and_the_reverse_to_data(visit):
    with visit() as page:
        for film in page.locator(FILMS).all():
            times = []
            for key in ("Home", "End"):
                film.locator("input[type=range]").press(key)
                times.append(int(film.locator("output").inner_text().removeprefix("t = ")))
            forward = film.locator("figcaption b").last.inner_text().startswith("Forward")
            assert times == ([0, 1000] if forward else [max(times), 0])
            assert max(times) > 700  # a sampler of few steps may start below T


def test_a_finger_moves_a_slider(visit):
    with visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True) as page:
        film = page.locator(FILMS).last
        slider = film.locator("input[type=range]")
        slider.scroll_into_view_if_needed()
        before, box = drawn(film), slider.bounding_box()
        assert box["height"] >= 44  # a thumb
        page.touchscreen.tap(box["x"] + 3, box["y"] + box["height"] / 2)
        assert frame(film)[0] == 0
        assert drawn(film) != before


def test_play_runs_to_the_end_and_pause_holds(visit):
    with visit() as page:
        film = page.locator(FILMS).first
        button = film.get_by_role("button")
        button.click()
        assert button.inner_text() == "Pause"
        page.wait_for_function("document.querySelector('.player output').value !== 't = 0'")
        button.click()
        held, _ = frame(film)
        assert held > 0
        assert button.inner_text() == "Play"
        page.wait_for_timeout(300)
        assert frame(film)[0] == held
        button.click()
        page.wait_for_function("document.querySelector('.player button').textContent === 'Play'")
        assert frame(film)[0] == frame(film)[1]


def test_who_asked_for_less_motion_steps_by_hand(visit):
    with visit(reduced_motion="reduce") as page:
        film = page.locator(FILMS).first
        button = film.get_by_role("button", name="Next step")
        for expected in (1, 2):
            button.click()
            page.wait_for_timeout(300)
            assert frame(film)[0] == expected


def test_switches_choose_a_sampler_and_a_class(visit):
    with visit() as page:
        films = page.locator("figure.film:has(fieldset)").all()
        assert len(films) == 5 + 3  # reverse processes, and pairs of images
        for film in films:
            shown = switched(page, film)
            assert len({*shown[:2]}) == 2  # the samplers; networks this young draw every class alike
        assert page.locator("legend", has_text="Class").count() == 4  # both of faces, and the digits' reverse processes


def test_in_the_committed_report_every_class_is_another_picture(chromium):
    page = chromium.new_page()
    page.goto((PROJECT / "reports/index.html").as_uri(), wait_until="load")
    films = page.locator("figure.film:has(legend:has-text('Class'))").all()
    assert len(films) == 4
    for film in films:
        shown = switched(page, film)
        assert len({*shown}) == len(shown) == 3
    page.close()


def switched(page, film):
    """What a film shows at first, and after each of its switches has gone one on."""
    shown = [tuple(drawn(film))]
    for fieldset in film.locator("fieldset").all():
        options = fieldset.locator("input").all()
        assert len(options) == (2 if fieldset.locator("legend").inner_text() == "Sampler" else classes_in(film))
        options[0].focus()
        page.keyboard.press("ArrowDown")
        assert options[1].is_checked()
        shown.append(tuple(drawn(film)))
    return shown


def classes_in(film):
    """How many classes a film shows: both of the faces, four of the digits."""
    return 2 if "female" in film.inner_text() else 4


def test_a_switch_keeps_the_moment(visit):
    with visit() as page:
        film = page.locator("figure.film:has(fieldset):has(input[type=range])").first
        film.locator("input[type=range]").press("Home")
        film.locator("label", has=page.locator("input[type=radio]")).last.click()
        assert int(film.locator("output").inner_text().removeprefix("t = ")) > 700


def test_without_scripts_the_stills_are_open(visit):
    with visit(java_script_enabled=False) as page:
        assert page.locator(".player").count() > 10
        assert not any(player.is_visible() for player in page.locator(".player").all())
        for film in page.locator("figure.film").all():
            assert film.locator("img").first.is_visible()


def test_paper_shows_the_stills_in_black_on_white(visit):
    with visit(color_scheme="dark") as page:
        assert not page.locator("figure.film img").first.is_visible()
        page.emulate_media(media="print")
        for film in page.locator("figure.film").all():
            assert not film.locator(".player").is_visible()
            assert film.locator("img").first.bounding_box()["height"] > 20
        look = "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        assert page.evaluate(look) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(visit, path, scheme):
    """Contrast (AA) of all text as it is drawn, names of controls, texts of images, order of headings, and more."""
    with visit(path, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(251, 250, 247)"
        assert dark == (scheme == "dark")
        found = Axe().run(page, options={} if scheme == "light" else {"runOnly": ["color-contrast"]}).response
        passed = {rule["id"] for rule in found["passes"]}
        assert "color-contrast" in passed
        assert scheme == "dark" or path != "index.html" or {"heading-order", "image-alt", "label"} <= passed
        assert [f"{rule['id']}: {rule['nodes'][0]['html'][:200]}" for rule in found["violations"]] == []
