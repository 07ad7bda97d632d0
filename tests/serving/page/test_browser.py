"""The page in a real Chromium. What it shows is held against what the same service answers here."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from serving.config import ServingConfig
from serving.schemas import NOTICE
from tests.serving.live import live
from tests.serving.page.fake import Fake, blurred, serving
from tests.tiny import tiny_bytes

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
REFUSED = "Failed to load resource"  # the browser's own line for any answer that is an error
WORDS = {"positive": "Positive", "negative": "Negative", "refer": "Refer to a person"}
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def page_url(bundle_folder: Path) -> Iterator[str]:
    """Where the page is, of a real service that explains and asks for no key."""
    with live(ServingConfig(bundle=bundle_folder, access_log=False)) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, page_url: str) -> Iterator[Open]:
    """Opens pages; none may complain or ask another host."""
    context = browser.new_context(reduced_motion="reduce")
    context.add_init_script(WATCH)
    complaints: list[str] = []
    asked: list[str] = []

    def listen(line: ConsoleMessage) -> None:
        if line.type in ("error", "warning"):
            complaints.append(line.text)

    def open_at(url: str = page_url, width: int = 1280, height: int = 900) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", listen)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        return page

    yield open_at
    violations = [text for page in context.pages for text in page.evaluate("window.violations")]
    context.close()
    assert [text for text in complaints if not text.startswith(REFUSED)] == []
    assert violations == []
    web = [urlsplit(url).hostname for url in asked if url.startswith(("http", "ws"))]
    assert set(web) == {"127.0.0.1"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "lesion.png"
    path.write_bytes(tiny_bytes(3))
    return path


def answers(url: str, image: Path, **query: str) -> dict[str, Any]:
    """What the service says about the image when no page is between."""
    kind = {"Content-Type": "image/png"}
    answer = httpx.post(f"{url}/v1/predict", params=query, content=image.read_bytes(), headers=kind)
    return dict(answer.raise_for_status().json()["predictions"][0])


def described(url: str) -> dict[str, Any]:
    return dict(httpx.get(f"{url}/v1/model").raise_for_status().json())


def upload(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    expect(page.locator("#result")).to_be_visible()


def test_an_upload_is_answered(open_page: Open, page_url: str, image: Path) -> None:
    page = open_page()
    upload(page, image)
    model, answer = described(page_url), answers(page_url, image, members="true")
    share = f"{answer['probabilities'][model['positive']] * 100:.1f}%"
    expect(page.locator("#figure")).to_have_text(share)
    expect(page.locator("#decision")).to_contain_text(WORDS[answer["decision"]])
    bar = page.get_by_role("img", name=f"Probability of {model['positive']} {share}")
    expect(bar).to_be_visible()
    expect(page.locator("#used")).to_contain_text(answer["operating_point"]["reason"])
    expect(page.locator("#votes-body tr")).to_have_count(len(model["members"]))
    expect(page.get_by_role("status")).to_contain_text(share)
    expect(page.locator("#sha256")).to_have_text(answer["sha256"])
    expect(page.locator("#digest")).to_have_text(model["bundle"]["digest"])
    expect(page.get_by_role("banner").get_by_text(NOTICE)).to_be_in_viewport()


def test_another_operating_point_asks_again(open_page: Open, page_url: str, image: Path) -> None:
    page = open_page()
    upload(page, image)
    second = described(page_url)["operating_points"][1]
    page.get_by_label("Operating point").select_option(second["name"])
    answer = answers(page_url, image, operating_point=second["name"])
    expect(page.locator("#used-name")).to_have_text(f"{second['name']}:")
    expect(page.locator("#decision")).to_contain_text(WORDS[answer["decision"]])
    expect(page.locator("#why")).to_contain_text(f"{second['threshold'] * 100:.1f}%")
    expect(page.locator("#curl")).to_contain_text(f"operating_point={second['name']}")


def test_a_prevalence_stands_beside(open_page: Open, page_url: str, image: Path) -> None:
    page = open_page()
    upload(page, image)
    positive = described(page_url)["positive"]
    page.get_by_label(re.compile("Prevalence")).fill("2")
    page.get_by_role("button", name="Apply").click()
    shifted = answers(page_url, image, prevalence=f"{positive}:0.02")["at_prevalence"][positive]
    expect(page.locator("#shifted-figure")).to_have_text(f"{shifted * 100:.1f}%")
    expect(page.locator("#shifted-label")).to_have_text(f"where 2% are {positive}")
    page.get_by_label(re.compile("Prevalence")).fill("200")
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_role("alert")).to_contain_text("between 0 and 100")


def test_the_heat_map_lies_over_the_image_and_fades(open_page: Open, image: Path) -> None:
    page = open_page()
    upload(page, image)
    expect(page.locator("#overlay")).to_be_hidden()
    page.get_by_role("button", name="Show where it looks").click()
    overlay = page.get_by_role("img", name="Heat map")
    expect(overlay).to_be_visible()
    assert overlay.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert overlay.bounding_box() == page.get_by_role("img", name="The chosen image").bounding_box()
    page.get_by_label("Heat map opacity").fill("25")
    expect(overlay).to_have_css("opacity", "0.25")
    expect(page.locator("#opacity-said")).to_have_text("25%")


def test_a_new_image_takes_the_old_heat_map_away(open_page: Open, image: Path) -> None:
    page = open_page()
    upload(page, image)
    page.get_by_role("button", name="Show where it looks").click()
    expect(page.locator("#overlay")).to_be_visible()
    page.get_by_role("button", name="Try example 1").click()
    expect(page.locator("#overlay")).to_be_hidden()
    expect(page.locator("#file-name")).to_contain_text("example-1.png")
    expect(page.locator("#figure")).to_be_visible()


def test_a_text_file_named_jpg_is_refused_in_words(open_page: Open, image: Path) -> None:
    page = open_page()
    upload(page, image)
    text = image.with_name("notes.jpg")
    text.write_text("not an image")
    page.set_input_files("#file", text)
    expect(page.get_by_role("alert")).to_contain_text(re.compile("JPEG, PNG"))
    expect(page.locator("#result")).to_be_hidden()  # of the image before
    upload(page, image)
    expect(page.get_by_role("alert")).to_be_empty()


@pytest.mark.parametrize("width", [320, 360, 768])
def test_a_narrow_screen_scrolls_only_down(open_page: Open, image: Path, width: int) -> None:
    page = open_page(width=width, height=740)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= width
    upload(page, image)
    page.get_by_role("button", name="Show where it looks").click()
    expect(page.locator("#overlay")).to_be_visible()
    page.get_by_text("The answer as JSON").click()
    assert page.evaluate(wide) <= width


def test_on_a_phone_the_answer_comes_into_view(open_page: Open, image: Path) -> None:
    page = open_page(width=360, height=740)
    upload(page, image)
    expect(page.locator("#figure")).to_be_in_viewport()


def test_all_can_be_done_from_the_keyboard(open_page: Open, page_url: str) -> None:
    page = open_page()
    page.get_by_role("button", name="Try example 1").wait_for()
    assert tab_to(page, "Try example 1")[:2] == ["Skip to the answer", "file"]
    page.keyboard.press("Enter")
    expect(page.locator("#result")).to_be_visible()
    tab_to(page, "point")
    page.keyboard.press("ArrowDown")
    second = described(page_url)["operating_points"][1]["name"]
    expect(page.locator("#used-name")).to_have_text(f"{second}:")
    tab_to(page, "Copy")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab_to(page, "The answer as JSON")
    page.keyboard.press("Enter")
    expect(page.locator("#json")).to_contain_text('"predictions"')


def tab_to(page: Page, name: str) -> list[str]:
    """Press Tab until what has this id, label or text has the focus; all that had it before."""
    now = "(it => it.id || it.ariaLabel || it.textContent.trim())(document.activeElement)"
    names: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        names.append(page.evaluate(now).removesuffix("copy"))
        if names[-1] == name or page.evaluate("document.activeElement.textContent").strip() == name:
            return names
    raise AssertionError(f"{name} has no place among {names}")


def test_an_image_can_be_dropped_or_pasted(open_page: Open, image: Path) -> None:
    page = open_page()
    page.get_by_role("button", name="Try example 1").wait_for()
    give = """([kind, bytes, name]) => {
      const held = new DataTransfer();
      held.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
      const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: held, bubbles: true })
        : new ClipboardEvent("paste", { clipboardData: held, bubbles: true });
      document.getElementById("drop").dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        page.evaluate(give, [kind, list(image.read_bytes()), f"{kind}.png"])
        expect(page.locator("#file-name")).to_contain_text(f"{kind}.png")
        expect(page.locator("#figure")).to_be_visible()


def test_the_curl_line_trusts_no_file_name(open_page: Open, page_url: str, image: Path) -> None:
    page = open_page()
    upload(page, image)
    line = page.locator("#curl")
    expect(line).to_contain_text(f"'{page_url}/v1/predict?")
    expect(line).to_contain_text("--data-binary '@lesion.png'")
    upload(page, image.rename(image.with_name("a'$(reboot)'.png")))
    expect(line).to_contain_text("--data-binary '@image.png'")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()


def test_a_service_with_keys_asks_for_one_and_remembers_it(open_page: Open, image: Path) -> None:
    with serving(Fake(key="open-sesame")) as url:
        page = open_page(url)
        expect(page.get_by_label("API key")).to_be_focused()
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("API key")
        page.get_by_label("API key").fill("open-sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_label("API key")).to_be_hidden()
        upload(page, image)
        expect(page.locator("#curl")).to_contain_text("Bearer $CONSILIUM_KEY")
        assert "open-sesame" not in page.content()


def test_many_classes_warnings_and_degradation_are_said(open_page: Open, image: Path) -> None:
    probs = {"nevus": 0.2, "<b>keratosis</b>": 0.1, "melanoma": 0.7}
    with serving(Fake(probs, changes=blurred(), degraded="resnet_7 failed")) as url:
        upload(page := open_page(url), image)
        expect(page.locator("#classes-body tr")).to_have_count(3)
        expect(page.locator("#classes-body")).to_contain_text("<b>keratosis</b>10.0%")
        expect(page.locator("#warnings")).to_contain_text("Unlike the training images")
        expect(page.locator("#warnings")).to_contain_text("blurred")
        expect(page.locator("#degraded")).to_have_text("Degraded: resnet_7 failed")


def test_with_no_positive_class_the_likeliest_is_named(open_page: Open, image: Path) -> None:
    undecided: dict[str, Any] = {
        "decision": None,
        "operating_point": None,
        "asked": 1,
        "members": {"cnn_0": {}},
    }
    fake = Fake(changes=undecided, positive=None, operating_points=[], cascade=True)
    with serving(fake) as url:
        upload(page := open_page(url), image)
        expect(page.locator("#figure-label")).to_have_text("Most probable: malignant")
        expect(page.locator("#decision")).to_be_hidden()
        expect(page.locator("#question")).to_be_hidden()
        expect(page.locator("#asked")).to_contain_text("1 of 3 members answered; the first")


def test_shares_that_differ_do_not_look_alike(open_page: Open, image: Path) -> None:
    with serving(Fake({"benign": 0.70004, "malignant": 0.29996})) as url:
        upload(page := open_page(url), image)
        expect(page.locator("#why")).to_have_text("29.996% is below the threshold of 30.000%.")
        expect(page.locator("#figure")).to_have_text("30.0%")


def test_where_nothing_speaks_for_the_class_that_is_said(open_page: Open, image: Path) -> None:
    with serving(Fake(heat=0)) as url:
        upload(page := open_page(url), image)
        page.get_by_role("button", name="Show where it looks").click()
        said = page.locator("#look-said")
        expect(said).to_contain_text("Nothing in the image speaks for malignant")
        expect(page.locator("#overlay")).to_be_hidden()
        page.get_by_role("button", name="Try example 1").click()
        expect(said).to_be_hidden()
