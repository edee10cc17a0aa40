"""The pages in a real browser: nothing fails, everything that can be clicked answers."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.report import folders
from tinyflux_pl.report.write import write_run_report, write_sweep_report

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDTHS = (400, 1280)

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Generator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """The page of a run with a metric that broke, and of a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    run = folders.write_run(folder / "run")
    text = (run / "csv" / "metrics.csv").read_text()
    (run / "csv" / "metrics.csv").write_text(text.replace("40.0", "nan", 1) + "105,cut")
    sweep = folders.write_sweep(folder / "sweep")
    return {"run": write_run_report(run), "sweep": write_sweep_report(sweep)}


def opened(browser, page: Path, width: int) -> Any:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    return browser


def one(browser, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def all_of(browser, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def click(browser, element) -> None:
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element
    )
    element.click()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_page_opens_without_an_error_and_fits_its_width(browser, pages, name, width):
    opened(browser, pages[name], width)
    figures = all_of(browser, "figure.chart")
    assert figures and all(f.find_elements("css selector", "svg path.line") for f in figures)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    assert not browser.get_log("browser")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_chart_hides_series_switches_its_axis_and_reads_values(browser, pages, width):
    opened(browser, pages["run"], width)
    chart = one(browser, "figure[data-chart=chart-loss]")
    assert len(chart.find_elements("css selector", "g.series")) == 2
    entry = chart.find_element("css selector", ".legend button")
    click(browser, entry)
    assert entry.get_attribute("aria-pressed") == "false"
    assert len(chart.find_elements("css selector", "g.series")) == 1
    click(browser, entry)
    before = [t.text for t in chart.find_elements("css selector", "text.tick")]
    click(browser, chart.find_element("css selector", "button.switch"))
    after = [t.text for t in chart.find_elements("css selector", "text.tick")]
    assert before != after
    chart.find_element("css selector", "svg").send_keys("\ue014")  # the right arrow
    tip = chart.find_element("css selector", ".tip")
    assert tip.is_displayed() and "optimizer step 5" in tip.text and "training" in tip.text
    from selenium.webdriver import ActionChains

    plot = chart.find_element("css selector", "svg")
    ActionChains(browser).move_to_element(plot).perform()
    assert tip.is_displayed() and "optimizer step 5" not in tip.text.splitlines()[0].split()
    assert not browser.get_log("browser")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_slider_moves_through_the_steps(browser, pages, width):
    opened(browser, pages["run"], width)
    box = one(browser, ".pictures")
    assert [s.get_attribute("data-step") for s in all_of(browser, ".shot.on")] == ["100", "100"]
    box.find_element("css selector", "input[type=range]").send_keys("\ue012")  # the left arrow
    assert {s.get_attribute("data-step") for s in all_of(browser, ".shot.on")} == {"50"}
    assert box.find_element("css selector", "output").text == "step 50"
    click(browser, box.find_element("css selector", "[data-mode=all]"))
    assert sum(s.is_displayed() for s in all_of(browser, ".shot")) == 4
    assert not browser.get_log("browser")


@pytest.mark.parametrize("width", WIDTHS)
def test_commands_are_copied_keys_searched_and_the_colour_scheme_switched(browser, pages, width):
    opened(browser, pages["run"], width)
    button = one(browser, "button.copy")
    click(browser, button)
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: button.text == "copied")
    field = one(browser, "input[type=search]")
    field.send_keys("batch_size")
    visible = [row for row in all_of(browser, "#keys tbody tr") if row.is_displayed()]
    assert [row.text.split() for row in visible] == [["hardware.batch_size", "8"]]
    shade = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(shade)
    click(browser, one(browser, "[data-scheme]"))
    assert browser.execute_script(shade) != before
    assert not browser.get_log("browser")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_sweep_is_sorted_and_compared_with_another_arm(browser, pages, width):
    opened(browser, pages["sweep"], width)
    header = next(h for h in all_of(browser, ".sortable th") if h.text == "validation loss")
    button = header.find_element("css selector", "button")
    column = browser.execute_script("return arguments[0].cellIndex", header)
    rows = "[...document.querySelectorAll('.sortable tbody tr')]"
    cells = f"return {rows}.map(r => +r.cells[%d].dataset.value)"
    click(browser, button)
    rising = browser.execute_script(cells % column)
    click(browser, button)
    assert rising == sorted(rising) and browser.execute_script(cells % column) == rising[::-1]
    select = one(browser, "select[data-shows=baseline]")
    select.find_elements("css selector", "option")[1].click()
    visible = [b for b in all_of(browser, "[data-shown-by=baseline]") if b.is_displayed()]
    assert [b.get_attribute("data-choice") for b in visible] == ["1"]
    jobs = all_of(browser, ".parallel path.job")
    browser.execute_script("arguments[0].focus()", jobs[0])
    assert "job 0" in one(browser, ".parallel .tip").text and len(jobs) == 6
    assert not browser.get_log("browser")


def test_every_text_has_enough_contrast_in_both_schemes(browser, pages):
    opened(browser, pages["run"], 1280)
    for scheme in ("light", "dark"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", scheme)
        poor = browser.execute_script(CONTRAST)
        assert not poor, f"{scheme}: {poor[:5]}"


CONTRAST = """
const value = (colour) => {
  const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3)
    .map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (node) => {
  for (let n = node; n; n = n.parentElement) {
    const colour = getComputedStyle(n).backgroundColor;
    if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
};
const poor = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
  if (!own || !node.getClientRects().length || node.closest("script")) continue;
  const style = getComputedStyle(node);
  const [a, b] = [value(node.ownerSVGElement ? style.fill : style.color), value(ground(node))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const label = `${node.tagName} ${node.className} "${node.textContent.slice(0, 20)}"`;
  if (ratio < 4.5) poor.push(`${label} ${ratio.toFixed(2)}`);
}
return poor;
"""
