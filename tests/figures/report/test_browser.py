"""The report in headless Chromium: keyboard, light and dark pages, three widths, nothing loaded from elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from support import figure_examples as examples

from wtacrs.figures.report.report import write_report
from wtacrs.validation.records.results import write_result

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (dev extra)")
_BROWSER = os.environ.get("WTACRS_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(_BROWSER is None, reason="no Chromium: install one or set WTACRS_CHROMIUM")

CONTRAST = """() => {
  const channels = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = rgb => { const [r, g, b] = rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = node => { for (; node; node = node.parentElement) {
    const colour = channels(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  const ratios = [...document.querySelectorAll("p, td, th, caption, figcaption, a, span, small, h1, h2, dt, dd, button")]
    .filter(node => node.textContent.trim() && node.offsetParent).map(node => {
      const a = light(channels(getComputedStyle(node).color)), b = light(behind(node));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
  return Math.min(...ratios);
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with tables of all widths and one figure."""
    folder = tmp_path_factory.mktemp("report")
    write_result(folder / "check.json", examples.check())
    write_result(folder / "deep" / "exact.json", examples.training("exact"))
    for budget in (0.1, 0.3):
        write_result(folder / "deep" / f"{budget}.json", examples.training(f"wta_crs(budget={budget})"))
    return write_report(folder).as_uri()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One for all tests: starting it is most of their time."""
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_can_be_read_and_loads_nothing(browser: Any, address: str, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    told: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) >= 4.5
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert told == []
    assert page.evaluate("[...document.images].every(image => image.alt)")
    page.close()


def test_keyboard_reaches_the_content_and_sorts_numbers(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    before = page.evaluate("document.activeElement.scrollLeft")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("old => document.activeElement.scrollLeft > old", arg=before, timeout=3000)
    page.get_by_role("button", name="final").first.focus()
    for order in ("ascending", "descending"):
        page.keyboard.press("Enter")
        found = page.evaluate(
            """() => { const head = document.activeElement.parentElement, table = head.closest("table");
            return [head.getAttribute("aria-sort"),
              [...table.tBodies[0].rows].map(row => parseFloat(row.cells[head.cellIndex].textContent))]; }"""
        )
        assert found == [order, sorted(found[1], reverse=order == "descending")]
    page.close()
