"""The appearance of the pages on a phone and a desktop, light and dark, with pictures.

SCREENSHOTS=folder stores a screenshot of every page there, and creates docs/dashboard.png again.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from receiver.clock import now_ms
from receiver.stores.sqlite import SqliteStore
from tests.support import busy_day, rich_record
from tests.support.dashboard_visits import PASSWORD
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
Scheme = Literal["light", "dark"]
WIDE: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
NARROW: ViewportSize = {"width": 320, "height": 640}
SIZES = {"wide": WIDE, "phone": PHONE}
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PAGES = {
    "overview": "",
    "tasks": "tasks",
    "gallery": "tasks?view=gallery",
    "deliveries": "deliveries",
    "dead": "dead",
    "redeliver": "redeliver?state=dead&count=1",
    "endpoints": "endpoints",
    "quarantine": "quarantine",
}
# Compare text with the colour behind it, by the formula of WCAG 2.
CONTRAST = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => c / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const said = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const box = element.getBoundingClientRect();
    const isPainted = box.width > 2 && !/^(title|desc|option)$/i.test(element.tagName);
    if (!said || !isPainted) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return faint;
}
"""
# A picture that cannot be decoded ends it with an error.
LOOK = """
async () => {
  for (const image of document.querySelectorAll("main img")) {
    image.scrollIntoView({ behavior: "instant", block: "nearest" });
    await image.decode();
  }
  scrollTo(0, 0);
}
"""


FITS = "document.documentElement.scrollWidth <= innerWidth"


@dataclass(frozen=True)
class BusyDay:
    """A record that is only read, and the address of its dashboard."""

    url: str
    newest: str
    store: SqliteStore


@dataclass(frozen=True)
class Display:
    """Whether a page fits into the window, and its texts that are hard to read."""

    fits: bool
    faint: list[str]


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory,
    serve: Callable[[Path, SqliteStore], AbstractContextManager[str]],
) -> Iterator[BusyDay]:
    folder = tmp_path_factory.mktemp("busy")
    store = SqliteStore(folder / "receiver.db")
    store.migrate()
    newest = busy_day.fill(store, folder / "pictures", now_ms())
    with serve(folder, store) as url:
        yield BusyDay(url, newest, store)
    store.close()


@pytest.fixture
def busy(recorded: BusyDay) -> BusyDay:
    """The record, with a worker that was just seen."""
    recorded.store.activity.heartbeat("here:1:worker", "worker", now_ms())
    return recorded


@pytest.fixture(scope="module")
def displays(chromium: Browser, recorded: BusyDay) -> dict[tuple[str, str], dict[str, Display]]:
    """How each page is displayed, by width and mode.

    It is loaded once, because only its display differs.
    """
    recorded.store.activity.heartbeat("here:1:worker", "worker", now_ms())
    page = enter(chromium, recorded.url, WIDE, "light")
    found: dict[tuple[str, str], dict[str, Display]] = defaultdict(dict)
    for name, path in {**PAGES, "task": f"tasks/{recorded.newest}"}.items():
        page.goto(f"{recorded.url}/dashboard/{path}")
        for (size, viewport), scheme in product(SIZES.items(), SCHEMES):
            page.set_viewport_size(viewport)
            page.emulate_media(color_scheme=scheme)
            page.evaluate(LOOK)
            found[size, scheme][name] = Display(page.evaluate(FITS), page.evaluate(CONTRAST))
            keep(page, f"{name}-{size}-{scheme}")
    page.context.close()
    return found


def enter(chromium: Browser, url: str, size: ViewportSize, scheme: Scheme) -> Page:
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    page.goto(f"{url}/dashboard/")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{url}/dashboard/")
    return page


def look(page: Page, address: str) -> None:
    """Open the page, and scroll past every picture so that it is loaded."""
    page.goto(address)
    page.evaluate(LOOK)


def keep(page: Page, name: str) -> None:
    """Store a screenshot of the page, if a folder for it is given."""
    if "SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_the_pages_of_a_busy_day_fit_and_are_readable(
    displays: dict[tuple[str, str], dict[str, Display]], size: str, scheme: Scheme
) -> None:
    pages = displays[size, scheme]
    assert [name for name, display in pages.items() if not display.fits] == []
    assert {name: display.faint for name, display in pages.items() if display.faint} == {}
    assert len(pages) == len(PAGES) + 1


def test_the_screenshot_in_the_docs_is_complete(
    chromium: Browser, busy: BusyDay, tmp_path: Path
) -> None:
    page = enter(chromium, busy.url, WIDE, "light")
    look(page, f"{busy.url}/dashboard/")
    page.screenshot(path=tmp_path / "dashboard.png", full_page=True)
    page.context.close()
    if "SCREENSHOTS" in os.environ:
        shutil.copy(tmp_path / "dashboard.png", ROOT / "docs" / "dashboard.png")
    assert (ROOT / "docs" / "dashboard.png").stat().st_size > 10_000


def test_long_and_hostile_words_fit_on_narrow_pages(
    chromium: Browser, url: str, store: SqliteStore, tmp_path: Path
) -> None:
    rich = rich_record.fill(store, tmp_path / "pictures", now_ms())
    page = enter(chromium, url, NARROW, "light")
    for path in [*PAGES.values(), *(f"tasks/{name}" for name in rich.tasks)]:
        look(page, f"{url}/dashboard/{path}")
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.evaluate(FITS), path
        assert page.evaluate(CONTRAST) == [], path
    page.context.close()
