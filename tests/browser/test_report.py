"""The report in a real browser: nothing loaded, nothing said, and everything readable, at any width and on paper."""

import re

import pytest

PAGES = ["usual", "nasty", "running"]

OWN_TEXT = """() => {
  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const [r, g, b, alpha] = parts(getComputedStyle(at).backgroundColor);
      if (alpha === undefined || alpha > 0) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body :not(svg, svg *, script, style)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, element.tagName + "." + element.className + " " + element.textContent.slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(params=PAGES)
def path(request):
    return request.getfixturevalue(request.param)


def test_it_opens_without_network_and_without_a_word(open_page, path):
    seen = open_page(path, offline=True)
    assert seen.requests == [path.as_uri()]
    assert seen.messages == []


def test_no_name_runs(open_page, nasty):
    seen = open_page(nasty)
    assert seen.page.locator("script").count() == 1
    assert seen.page.locator("img").count() == 0
    assert seen.page.locator("th[scope=row]", has_text="<script>alert(1)</script>").count() > 1
    hints = seen.page.eval_on_selector_all("[title]", "all => all.map(one => one.title)")
    assert hints
    assert all(hint.startswith("By seed") for hint in hints)
    assert seen.messages == []


def test_a_script_that_is_not_the_pages_own_does_not_run(open_page, usual, tmp_path):
    path = tmp_path / "changed.html"
    text = usual.read_text(encoding="utf-8")
    path.write_text(text.replace("<main>", "<main><script>document.title = 'taken'</script>"), encoding="utf-8")
    seen = open_page(path)
    assert seen.page.title() == "A study"
    assert any("Content Security Policy" in message for message in seen.messages)


CLICK_THROUGH = """() => {
  const wrong = [];
  let heads = 0;
  for (const table of document.querySelectorAll("table.sortable")) {
    const rows = () => [...table.tBodies[0].rows];
    const before = rows();
    if (before.length < 2) continue;
    for (const head of table.tHead.rows[0].cells) {
      heads += 1;
      const where = table.textContent.trim().slice(0, 30) + ": " + head.textContent;
      for (const state of ["ascending", "descending", null]) {
        head.querySelector("button").click();
        if (head.getAttribute("aria-sort") !== state) wrong.push(where + " is not " + state);
        const now = new Set(rows());
        if (now.size !== before.length || !before.every((row) => now.has(row))) wrong.push(where + " lost rows");
        if (table.querySelectorAll("[aria-sort]").length > 1) wrong.push(where + " is not the only one");
      }
      if (!rows().every((row, i) => row === before[i])) wrong.push(where + " does not sort back");
    }
  }
  return [heads, wrong];
}"""


def test_every_header_sorts_and_sorts_back(open_page, path):
    heads, wrong = open_page(path).page.evaluate(CLICK_THROUGH)
    assert heads > 40
    assert wrong == []


def column(table, j):
    """What a column's cells say first, the small print left out."""
    return table.locator("tbody tr").evaluate_all(
        """(rows, j) => rows.map(row => {
            const cell = row.cells[j].cloneNode(true);
            cell.querySelectorAll("small, svg").forEach(one => one.remove());
            return cell.textContent.trim();
        })""",
        j,
    )


def test_numbers_sort_as_numbers_and_what_is_missing_stays_below(open_page, usual):
    page = open_page(usual).page
    table = page.locator("table.sortable").first
    heads = [text.split("\n")[0] for text in table.locator("thead th").all_inner_texts()]
    j = heads.index("Δm, %")
    head = table.locator("thead th").nth(j)
    head.locator("button").click()
    numbers = [float(text.replace("−", "-")) for text in column(table, j)]
    assert numbers == sorted(numbers)
    assert min(numbers) < 0 < max(numbers)
    j = heads.index("p, Holm")
    for state in ("ascending", "descending"):
        table.locator("thead th button").nth(j).click()
        assert table.locator("thead th").nth(j).get_attribute("aria-sort") == state
        assert column(table, j)[-1] == "–"


def sorted_cells(page, cells, clicks=1):
    """The cells of a made-up column after so many clicks on its header."""
    rows = "".join(f"<tr>{cell if cell.startswith('<td') else f'<td>{cell}</td>'}</tr>" for cell in cells)
    page.evaluate(
        """rows => {
            document.querySelector("#made")?.remove();
            const table = document.createElement("table");
            table.id = "made";
            table.innerHTML = `<thead><tr><th>x</th></tr></thead><tbody>${rows}</tbody>`;
            document.body.append(table);
            sortable(table);
        }""",
        rows,
    )
    for _ in range(clicks):
        page.locator("#made button").click()
    return column(page.locator("#made"), 0)


@pytest.mark.parametrize(
    "wanted",
    [
        ["−∞", "−1\u202f234.5", "−0.4", "0.0", "+3.2", "12", "1\u202f234"],
        ["0.05×", "1.25×", "14.2×", "210×"],
        ["1.204·10⁻⁵", "0.02", "3", "1.1·10⁷"],
        ["<\u202f0.001", "0.031", "1.000"],
        ["0 of 8", "2 of 8", "10 of 12"],
        ["arm 2", "arm 10", "sum"],
        ["3", "20", "never", "–"],
    ],
)
def test_every_way_in_which_the_report_writes_a_value_has_its_order(open_page, usual, wanted):
    page = open_page(usual).page
    escaped = [text.replace("<", "&lt;") for text in wanted]
    assert sorted_cells(page, escaped[::-1]) == wanted
    missing = [text for text in wanted if text == "–"]
    known = [text for text in wanted if text != "–"]
    if "never" not in wanted:
        assert sorted_cells(page, escaped, clicks=2) == known[::-1] + missing


def test_units_are_sorted_by_what_stands_behind_them(open_page, usual):
    page = open_page(usual).page
    cells = ['<td data-v="120">2 min 00 s</td>', '<td data-v="0.9">900 ms</td>', '<td data-v="">–</td>']
    assert sorted_cells(page, cells) == ["900 ms", "2 min 00 s", "–"]


def test_sorting_works_from_the_keyboard(open_page, usual):
    page = open_page(usual).page
    button = page.locator("table.sortable thead button").nth(1)
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.keyboard.press("Space")
    assert page.locator("th[aria-sort=descending]").count() == 1


def test_without_scripts_the_page_is_whole(open_page, usual):
    page = open_page(usual, java_script_enabled=False).page
    assert page.locator("thead button").count() == 0
    assert page.locator("section").count() > 8
    assert page.locator("#verdict").is_visible()


def test_every_link_in_the_page_has_its_target(open_page, path):
    page = open_page(path).page
    missing = page.eval_on_selector_all(
        "a[href], use[href]",
        "all => all.map(one => one.getAttribute('href')).filter(to => !document.getElementById(to.slice(1)))",
    )
    assert missing == []
    ids = page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_a_cell_leads_to_its_runs_and_back(open_page, usual):
    page = open_page(usual).page
    cell = page.locator("td[id^=cell-] a.cell").nth(6)
    href = cell.get_attribute("href")
    place = cell.locator("xpath=..").get_attribute("id")
    cell.click()
    row = page.locator(href)
    assert row.is_visible()
    assert row.evaluate("one => one.closest('details').open")
    assert re.fullmatch(r"#of-\d+-\d+", href)
    row.locator("a.back").click()
    assert page.evaluate("location.hash") == f"#{place}"
    assert page.locator(f"#{place}").is_visible()


def test_every_number_of_the_tables_of_arms_and_tasks_has_runs_behind_it(open_page, usual):
    page = open_page(usual).page
    cells = page.locator("section[aria-labelledby=tasks] tbody td[id]")
    assert cells.count() == 5 * 4
    assert page.locator("section[aria-labelledby=tasks] tbody td[id] a.cell[title]").count() == cells.count()
    assert page.locator("section[aria-labelledby=arms] a.cell").count() > 5 * 8


def test_all_figures_are_seen_and_fit(open_page, path):
    page = open_page(path).page
    boxes = page.eval_on_selector_all("figure svg", "all => all.map(one => one.getBoundingClientRect().toJSON())")
    assert boxes
    for box in boxes:
        assert box["width"] > 100
        assert box["height"] > 40
        assert box["left"] >= 0
        assert box["right"] <= 1280


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["usual", "running"])
def test_all_text_stands_out_from_what_is_behind_it(open_page, name, scheme, request):
    page = open_page(request.getfixturevalue(name), color_scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    found = page.evaluate(OWN_TEXT)
    assert len(found) > 200
    assert [(round(ratio, 2), what) for ratio, what in found if ratio < 4.5] == []


def test_dark_and_light_are_not_the_same(open_page, usual):
    behind = [
        open_page(usual, color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert behind[0] != behind[1]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_never_scrolls_the_page_sideways(open_page, path, width):
    page = open_page(path, width=width).page
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_nothing_is_cut_and_nothing_is_closed(open_page, path):
    page = open_page(path, width=720).page
    page.emulate_media(media="print")
    page.locator("details:not([open])").first.wait_for(state="detached")
    cut = page.eval_on_selector_all(
        ".scroll", "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.ariaLabel)"
    )
    assert cut == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert not page.locator("nav").is_visible()
    page.emulate_media(media="screen")
    page.locator("details.runs[open]").first.wait_for(state="detached")


def test_a_study_that_runs_has_a_banner_and_no_verdict(open_page, running):
    page = open_page(running).page
    assert "Running: 37 of 64 runs, about 12 min left" in page.locator(".running").inner_text().replace("\u202f", " ")
    assert page.locator("#verdict").inner_text() == "SO FAR"
    assert "No verdict yet" in page.locator(".card .headline").inner_text()
