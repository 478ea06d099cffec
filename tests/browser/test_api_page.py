"""The page /docs in a real browser."""

from __future__ import annotations

from itertools import pairwise

from playwright.sync_api import BrowserContext, expect


def test_the_page_shows_the_api_first_and_loads_nothing_from_elsewhere(
    context: BrowserContext, url: str
) -> None:
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{url}/docs")
    expect(page.locator("main h2").first).to_have_text("Tasks")
    expect(page.locator("main")).to_have_count(1)
    expect(page.get_by_text("Bearer $API_TOKEN").first).to_be_visible()
    elsewhere = [one for one in requested if not one.startswith((url, "data:"))]
    assert (problems, elsewhere) == ([], [])
    levels = page.locator("main [aria-level]").evaluate_all(
        "headings => headings.map(heading => Number(heading.ariaLevel))"
    )
    assert len(levels) > 20
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("main pre:not([tabindex])").count() == 0
