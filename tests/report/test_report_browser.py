"""The page of a report in a real browser: sorting, filtering, theme, pictures, and nothing from elsewhere."""

from pathlib import Path

import pytest
from factories import make_record, make_spec
from made_up import report_on
from test_report import answered

pytestmark = pytest.mark.browser
REPORTS = Path(__file__).parents[2] / "reports"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
BOXES = """[...document.querySelectorAll("svg[role=img]")].map(picture => {
    const box = picture.getBoundingClientRect();
    return [box.left, box.right, box.width, box.height, picture.getAttribute("aria-label")];
})"""


@pytest.fixture
def open_page(browser):
    """Open a report; afterwards nothing was asked of a host or another file, and nothing went wrong."""
    seen, wrong, pages = [], [], []

    def opened(out, **options):
        page = browser.new_page(**options)
        page.set_default_timeout(300_000)
        page.on("request", lambda request: seen.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("console", lambda said: wrong.append(said.text))
        address = (out / "index.html").as_uri()
        page.goto(address)
        assert seen == [address]

        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert len(seen) <= 1 and wrong == []


def first_column(page):
    rows = page.locator("table").first.locator("tbody tr:visible")
    return [text.split("\t")[0] for text in rows.all_inner_texts()]


def test_tables_sort_and_filter_and_pictures_are_there(tmp_path, open_page):
    rates = {f"s{number}": number / 4 for number in range(9)}
    out, _ = answered(tmp_path, {"full": 1.5, **rates}, seeds=2)
    page = open_page(out, viewport={"width": 390, "height": 800})
    assert first_column(page) == ["full", *rates]
    score = page.locator("table").first.locator("th button", has_text="accuracy, 95 %")
    score.focus()
    page.keyboard.press("Enter")
    rising = first_column(page)
    assert rising[0] == "s0" and rising[-1] == "s8"
    assert page.locator("th[aria-sort=ascending]").count() == 1
    score.click()
    assert first_column(page) == rising[::-1]
    page.locator("input.filter").first.fill("S3")
    assert first_column(page) == ["s3"]
    page.locator("input.filter").first.fill("")
    assert len(first_column(page)) == 10

    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "only tables scroll"
    boxes = page.evaluate(BOXES)
    assert len(boxes) == 3, "score against memory, differences, memory by part"
    assert all(right <= 390 and label for _, right, _, _, label in boxes)
    titles = page.locator("svg .part title").all_text_contents()
    assert any(title.startswith("s3: ") for title in titles)


def test_the_theme_follows_the_system_and_the_reader(tmp_path, open_page):
    out, _ = answered(tmp_path, {"full": 1.5, "head": 0.5}, seeds=2)
    page = open_page(out, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('svg text')).fill"
    dark = page.evaluate(ground), page.evaluate(ink)
    page.locator("button.theme").click()
    light = page.evaluate(ground), page.evaluate(ink)
    assert light[0] == "rgb(255, 255, 255)" and dark[0] != light[0] and dark[1] != light[1]
    page.emulate_media(media="print")
    assert not page.locator("button.theme").is_visible()


def test_hostile_names_are_text(tmp_path, open_page):
    specs = [make_spec(label=f"{EVIL}{number}", model=EVIL) for number in range(2)]
    page = open_page(report_on(tmp_path, specs, [make_record(spec) for spec in specs]))
    assert first_column(page) == [f"{EVIL}0", f"{EVIL}1"]
    assert page.locator("img").count() == 0 and page.locator("script").count() == 1
    assert EVIL in page.locator("svg text").all_text_contents()[0] or page.locator("svg").count()


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in REPORTS.rglob("report.md")), ids=lambda f: f.name
)
def test_a_committed_report_is_whole_on_a_phone_and_every_picture_is_drawn(folder, open_page):
    page = open_page(folder, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "only tables scroll"
    boxes = page.evaluate(BOXES)
    assert len(boxes) == len(list((folder / "plots").iterdir()))
    for left, right, width, height, label in boxes:
        assert left >= 0 and right <= 390 and width > 300 and height > 100 and label
    first_score = page.locator("table").first.locator("tbody td.number").first.bounding_box()
    assert first_score["x"] + first_score["width"] <= 390, "seen without scrolling"
