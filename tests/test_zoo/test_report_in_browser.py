"""The page of the report in a real browser: sorting, filters, bars, links, both colour schemes, a narrow screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from mtadapt.zoo.report import write_report
from tests.zoo_results import metrics, weights, write_cell

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra 'tests' is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

DET = {"random": 9.0, "imagenet": 16.0, "moco": 12.0}
FILES = {"imagenet": "package:imagenet", "moco": "https://example.org/moco.pth"}
SCRIPT = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints, two paradigms, one failed run, one label setting more; names that are HTML."""
    root = tmp_path_factory.mktemp("results with space & umlaut ü")
    for seed in range(3):
        for name, det in DET.items():
            loaded = None if name == "random" else weights(name, source=FILES[name])
            alone = metrics(det=10.0 + seed)
            write_cell(root, "single_task", name, "det", seed, metrics=alone, weights=loaded)
            for paradigm, more in (("finetune", 0.0), ("adapt_finetune", 100.0 / 3)):
                found = metrics(det=det + seed + more, sem_seg=40.0 + seed, drivable=90.0)
                write_cell(root, "multi_task", name, paradigm, seed, metrics=found, weights=loaded)
        write_cell(root, "multi_task", "random", "finetune", seed, label_setting="disjoint", metrics=metrics(det=3))
    write_cell(root, "multi_task", "moco", "lv", 0, status="failed", error=SCRIPT, weights=loaded)
    return write_report(root, root / "report")[-1]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page that is open, with what it complained about and what it asked for."""

    def __init__(self, browser: sync_api.Browser, report: Path, **context: object) -> None:
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def table(self) -> sync_api.Locator:
        """The results of the first label setting."""
        return self.page.locator("table.results").first

    def shown(self, column: int) -> list[str]:
        """The texts of a column of the results, from top to bottom."""
        return self.table().locator(f"tbody tr:visible > :nth-child({column})").all_inner_texts()


@pytest.fixture
def visit(browser: sync_api.Browser, report: Path) -> Iterator[Visit]:
    visit = Visit(browser, report, viewport=dict(width=1280, height=900))
    yield visit
    visit.context.close()
    assert visit.complaints == []
    assert [url for url in visit.requests if not url.startswith(("file://", "data:"))] == []
    assert [url for url in visit.requests if url.endswith((".css", ".js", ".ico"))] == []


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0]) for text in texts if text != "\N{EN DASH}"]


# Sorting


def test_a_click_sorts_by_number_the_next_one_the_other_way_the_third_back(visit: Visit) -> None:
    """As text, 9.0 would stand above 50.3."""
    head = visit.table().locator("thead th").nth(2)
    before = visit.shown(3)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    after = visit.shown(3)
    assert numbers(after) == [50.3, 46.3, 43.3, 17.0, 13.0, 11.0, 11.0, 11.0, 10.0]
    assert after[-3:] == ["\N{EN DASH}"] * 3  # the rows without a number stay below
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(visit.shown(3)) == sorted(numbers(before))
    assert visit.shown(3)[-3:] == ["\N{EN DASH}"] * 3
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert visit.shown(3) == before


def test_keyboard_sorts_and_only_one_column_is_sorted(visit: Visit) -> None:
    heads = visit.table().locator("thead th")
    heads.nth(2).get_by_role("button").click()
    heads.nth(0).get_by_role("button").focus()
    visit.page.keyboard.press("Enter")
    assert [head.get_attribute("aria-sort") for head in heads.all()].count("none") == heads.count() - 1
    assert heads.nth(0).get_attribute("aria-sort") == "ascending"
    assert visit.shown(1) == sorted(visit.shown(1))


def test_differences_sort_past_rows_without_a_test(visit: Visit) -> None:
    table = visit.page.locator("table.differences").first
    table.get_by_role("button", name="seeds").click()
    table.get_by_role("button", name="p", exact=True).click()
    cells = table.locator("tbody tr > :nth-child(7)").all_inner_texts()
    assert len(cells) == table.locator("tbody tr").count()


# Bars


def test_bars_begin_at_zero_and_end_at_the_mean(visit: Visit) -> None:
    chart = visit.page.locator(".chart").first
    assert chart.locator("figcaption").inner_text() == "det AP %"
    end = float(chart.get_attribute("data-end") or "nan")
    assert end == 60.0
    for name, det in DET.items():
        for paradigm, mean in (("finetune", det + 1), ("adapt_finetune", det + 1 + 100 / 3)):
            bar = chart.locator(f".bar[data-checkpoint={name}][data-paradigm={paradigm}]")
            plot, rect = bar.locator("svg").bounding_box(), bar.locator("rect.mean").bounding_box()
            assert plot is not None
            assert rect is not None
            assert rect["x"] == pytest.approx(plot["x"], abs=0.5)
            assert rect["width"] / plot["width"] == pytest.approx(mean / end, abs=0.005)
            # Seeds lie one point apart: the standard deviation is 1, to each side.
            error = bar.locator(".error").first.evaluate("line => line.x2.baseVal.value - line.x1.baseVal.value")
            assert error / plot["width"] == pytest.approx(2 / end, abs=0.001)
            baseline = bar.locator(".baseline").bounding_box()
            assert baseline is not None
            assert (baseline["x"] - plot["x"]) / plot["width"] == pytest.approx(11 / end, abs=0.01)
            assert bar.locator("circle").count() == 3


def test_bars_have_their_values_in_words(visit: Visit) -> None:
    bar = visit.page.get_by_role("img", name="det AP, imagenet, finetune: 17.0 ± 1.0")
    assert bar.count() == 1
    assert visit.page.locator(".chart").count() == 4  # three tasks, and one of the other label setting


# Filters and links


def test_filters_hide_rows_bars_and_label_settings(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("imagenet", exact=True).uncheck()
    page.get_by_label("single task", exact=True).uncheck()
    assert set(visit.shown(1)) == {"random", "moco"}
    assert page.locator(".group:visible p").first.inner_text() == "random"
    assert page.locator(".group:visible", has_text="imagenet").count() == 0
    drawn = "lines => lines.filter(line => getComputedStyle(line).display !== 'none').length"
    assert page.eval_on_selector_all(".baseline", drawn) == 0
    page.get_by_label("disjoint", exact=True).uncheck()
    assert page.locator("section h2:visible").all_inner_texts() == ["Label setting full", "How to read it"]
    page.get_by_role("button", name="show all").click()
    page.get_by_role("button", name="show all").wait_for(state="hidden")
    assert len(visit.shown(1)) == 12
    assert page.eval_on_selector_all(".baseline", drawn) == 3 * 3


def test_all_links_lead_to_files(visit: Visit, report: Path) -> None:
    visit.page.locator("details.runs > summary").click()
    links = visit.page.eval_on_selector_all("a[href]", "links => links.map(link => [link.textContent, link.href])")
    links.remove([FILES["moco"], FILES["moco"]])
    # Config and log of 9 single-task runs, 18 + 3 + 1 transfers; the two other files.
    assert len(links) == 2 * 31 + 2
    files = {Path(url2pathname(urlparse(address).path)) for _, address in links}
    assert len(files) == len(links)
    assert files == {
        *report.parent.parent.rglob("seed*/*.[pt]*"),
        report.parent / "results.csv",
        report.parent / "report.md",
    }
    for text, address in links[-4:-2]:
        visit.page.goto(address)
        assert visit.page.locator("body").inner_text().strip() == {"config": "# the config", "log": "the log"}[text]


def test_text_stays_text(visit: Visit) -> None:
    assert SCRIPT in visit.page.locator(".failed-runs").inner_text()
    assert visit.page.locator("img").count() == 0
    assert visit.page.title() == "camvid: benchmark of pretrained checkpoints"


# Looks


def contrast(first: str, second: str) -> float:
    """Ratio of the luminances of two computed colours, by WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(browser: sync_api.Browser, report: Path, scheme: str) -> None:
    visit = Visit(browser, report, color_scheme=scheme)

    def colour(selector: str, name: str) -> str:
        return visit.page.locator(selector).first.evaluate(f"element => getComputedStyle(element)['{name}']")

    page, card = colour("body", "backgroundColor"), colour(".chart", "backgroundColor")
    assert (contrast(page, "rgb(0, 0, 0)") > 10) == (scheme == "light")
    for selector in ("body", ".lead", ".eyebrow"):
        assert contrast(colour(selector, "color"), page) >= 4.5, selector
    for selector in (".results td", ".spread", "thead button", ".chart .name", ".alone", "a"):
        assert contrast(colour(selector, "color"), card) >= 4.5, selector
    for selector in ("rect.mean", ".bar.c1 rect.mean"):
        assert contrast(colour(selector, "fill"), card) >= 3, selector
    visit.context.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_never_scrolls_sideways(browser: sync_api.Browser, report: Path, width: int) -> None:
    visit = Visit(browser, report, viewport=dict(width=width, height=800))
    for details in visit.page.locator("details").all():
        details.evaluate("element => { element.open = true; }")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    # The paradigm stands in its own column, or under the checkpoint where there is no room for one.
    assert visit.table().locator("tbody td.broad").first.is_visible() == (width == 1280)
    assert visit.table().locator("tbody span.narrow").first.is_visible() == (width == 400)
    for chart in visit.page.locator(".chart").all():
        assert all((box := svg.bounding_box()) and box["width"] > 80 for svg in chart.locator("svg").all())
    visit.context.close()


def test_without_scripts_everything_is_there_but_the_filters(browser: sync_api.Browser, report: Path) -> None:
    visit = Visit(browser, report, java_script_enabled=False)
    assert visit.page.locator(".filters").is_hidden()
    assert visit.table().locator("tbody tr").count() == 12
    assert visit.page.locator("rect.mean").count() == 3 * 6 + 1
    visit.context.close()
