"""The site in a browser, from disk: it sorts, filters, says nothing odd, fits a phone, and axe finds nothing."""

from __future__ import annotations

import pytest

KINDS = (
    "overview", "methods", "claims", "sparsity", "continual", "robustness", "hostile", "method", "record",
    "failed record", "audited record",
)  # fmt: skip


@pytest.fixture(scope="module")
def page(browser):
    """A page that remembers what its console said."""
    found = browser.new_page(viewport={"width": 1200, "height": 800})
    found.set_default_timeout(120_000)
    said: list[str] = []
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on("requestfailed", lambda request: said.append(request.url))
    found.said = said
    yield found
    found.close()


@pytest.fixture
def opened(page, kinds):
    """`opened(kind)` shows that page, in a wide window and a light scheme."""

    def show(kind):
        page.said.clear()
        page.set_viewport_size({"width": 1200, "height": 800})
        page.emulate_media(color_scheme="light")
        page.goto(kinds[kind].as_uri())
        return page

    return show


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_every_kind(opened, kind):
    """No word on the console, no violation of axe's rules in light and dark, no sideways scrolling at 360 px."""
    page = opened(kind)
    assert page.said == []
    found = violations(page)
    # Dark differs in colours alone.
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    found += violations(page, runOnly=["color-contrast"])
    assert not [(rule["id"], node["html"][:200]) for rule in found for node in rule["nodes"]]
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def violations(page, **options):
    """What axe finds. It would fetch style sheets, which a page opened from disk may not; a drawing is one image."""
    from axe_playwright_python.sync_playwright import Axe

    context = {"exclude": [["svg > *"]]}
    options = {"preload": False, "resultTypes": ["violations"], **options}
    return Axe().run(page, context=context, options=options).response["violations"]


def test_axe_would_find_what_is_wrong(opened):
    page = opened("record")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\"><p style=\"color: #ccc\">pale</p>')"
    )
    found = {rule["id"] for rule in violations(page)}
    assert {"image-alt", "color-contrast"} <= found


def cells(page, table, column):
    """Text of the column's cells that are shown, by group."""
    script = """([id, column]) => [...document.getElementById(id).tBodies].map((body) => [...body.rows]
        .filter((row) => !row.classList.contains("group") && !row.hidden).map((row) => row.cells[column].innerText))"""
    return page.evaluate(script, [table, column])


def test_a_table_sorts_by_mouse_and_keyboard(opened):
    page = opened("sparsity")
    head = page.locator("#b1-score thead th").nth(3)
    assert head.inner_text().startswith("area")
    before = cells(page, "b1-score", 3)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    [rising] = cells(page, "b1-score", 3)
    numbers = [float(text.split(" ")[0]) for text in rising if text != "–"]
    assert len(numbers) > 9 and numbers == sorted(numbers) and rising[-1] == "–"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    [falling] = cells(page, "b1-score", 3)
    assert falling == [*rising[:-1][::-1], "–"] and falling != before[0][::-1]
    page.locator("#b1-score thead th").nth(1).locator("button").click()
    assert head.get_attribute("aria-sort") is None
    [names] = cells(page, "b1-score", 1)
    assert names == sorted(names)


def test_counts_with_units_sort_as_numbers(opened):
    page = opened("sparsity")
    page.evaluate("""document.body.insertAdjacentHTML('beforeend', `<div><table id="t"><caption>t</caption><thead><tr>
        <th>n</th></tr></thead><tbody>` + ["2.1 M", "–", "431 k", "< 0.001", "−3.5 ± 9", "0.02", "1–4", "12,000"].map(
        (text) => `<tr><td>${text}</td></tr>`).join("") + "</tbody></table></div>")""")
    page.evaluate("sortable(document.getElementById('t'))")
    page.locator("#t button").click()
    wanted = ["−3.5 ± 9", "< 0.001", "0.02", "1–4", "12,000", "431 k", "2.1 M", "–"]
    assert cells(page, "t", 0) == [wanted]


def test_rows_stay_in_their_group(opened):
    page = opened("continual")
    before = cells(page, "b1-score", 1)
    page.locator("#b1-score thead th").nth(3).locator("button").click()
    after = cells(page, "b1-score", 1)
    assert len(after) == 3 and after != before
    assert [sorted(group) for group in after] == [sorted(group) for group in before]


def test_a_table_filters(opened):
    page = opened("continual")
    tools = page.locator(".tools").first
    tools.locator("input").fill("der++")
    [free, storing, references] = cells(page, "b1-score", 1)
    assert free == references == [] and [name.split()[0] for name in storing] == ["der++"]
    assert tools.locator("output").inner_text() == "1 of 9 rows"
    assert page.locator("#b1-score tr.group:visible").count() == 1
    tools.locator("input").fill("")
    assert sum(map(len, cells(page, "b1-score", 1))) == 9 and tools.locator("output").inner_text() == ""


def test_claims_filter_by_verdict_and_paper(opened):
    page = opened("claims")
    every = page.locator("#claims tbody tr").count()
    page.locator("select[name=verdict]").select_option("not-run")
    not_run = page.locator("#claims tbody tr:visible").count()
    page.locator("select[name=paper]").select_option("nmi2024")
    script = "rows => rows.filter(r => !r.hidden).map(r => [r.dataset.verdict, r.dataset.paper].join())"
    shown = page.locator("#claims tbody tr").evaluate_all(script)
    assert set(shown) == {"not-run,nmi2024"} and 0 < len(shown) < not_run < every


def test_the_first_tab_skips_to_the_content(opened):
    page = opened("overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
