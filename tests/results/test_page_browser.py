"""The page in a real browser: what a reader does with it, checked against the records; nothing leaves it or fails."""

import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from synthetic_run import HOSTILE, run_records, with_findings
from test_report import EDGES

from autoprune.results import formats
from autoprune.results.formats import percent
from autoprune.results.page.encode import limits, shown_trials
from autoprune.results.page.render import render_html
from autoprune.results.picks import picks
from autoprune.results.report import write_report
from autoprune.spec.front import front
from autoprune.spec.record import read_records

GOLDEN = Path(__file__).parents[1] / "golden" / "records-1.jsonl"


@contextmanager
def opened(browser, path, **context):
    """The page at ``path`` in a fresh context; errors, dialogs and requests beyond the file itself fail the test."""
    own = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
    own.set_default_timeout(20_000)
    page, wrong = own.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on(
        "request", lambda r: wrong.append(r.url) if r.url != path.as_uri() and not r.url.startswith("blob:") else None
    )
    page.goto(path.as_uri())
    if page.get_attribute("html", "data-ready") is None:
        pytest.fail(f"the script did not reach its end: {wrong}")
    yield page
    assert wrong == []
    own.close()


@pytest.fixture(scope="module")
def report(rich, tmp_path_factory):
    return write_report(rich, tmp_path_factory.mktemp("page") / "report")


def settled(page):
    """Let the page draw what the last input asked for: it draws once a frame."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def feasible(records):
    return [t for t in shown_trials(records) if t.feasible and t.origin != "dense"]


def told(page):
    """(remaining, of) as the page says."""
    return tuple(map(int, re.match(r"(\d+) of (\d+) configs remain", page.inner_text("#remain")).groups()))


def test_a_bound_filters_everything_and_names_the_best(browser, report, rich):
    with opened(browser, report.html) as page:
        every = feasible(rich)
        assert told(page) == (len(every), len(every))
        slider = page.locator("#max-macs")
        slider.focus()
        for _ in range(30):
            page.keyboard.press("ArrowLeft")
        settled(page)
        values = sorted({t.values["macs"] for t in rich.trials if t.feasible})
        bound = values[int(slider.input_value())]
        left = [t for t in every if t.values["macs"] <= bound]
        assert 0 < len(left) < len(every)
        page.wait_for_function(
            "n => document.querySelector('#remain').textContent.startsWith(n + ' of')", arg=len(left)
        )
        best = min(left, key=lambda t: (t.values["latency_ms"], t.values["accuracy_drop"], t.number))
        assert page.get_attribute("#best", "data-number") == str(best.number)
        faded = page.eval_on_selector_all(
            "#scatter .mark.out", "nodes => nodes.map(node => Number(node.dataset.number))"
        )
        assert set(faded) == {t.number for t in shown_trials(rich) if t.values["macs"] > bound and t.origin != "dense"}
        page.click("text=The same in the terminal")
        command = page.inner_text(".as-command code")
        said = re.search(r"autoprune select runs/digits --max (\w+)=(\S+) --minimize latency_ms", command)
        metric, least = said.groups()
        assert metric == "macs"
        assert float(least) == bound
        page.click("text=Clear all")
        page.wait_for_function(
            "n => document.querySelector('#remain').textContent.startsWith(n + ' of')", arg=len(every)
        )


def test_a_brush_on_an_axis_keeps_a_range(browser, report, rich):
    with opened(browser, report.html) as page:
        page.locator("#parallel").scroll_into_view_if_needed()
        zone = page.locator('[data-axis="latency_ms"].zone').bounding_box()
        x, y = zone["x"] + zone["width"] / 2, zone["y"]
        page.mouse.move(x, y + zone["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(x, y + zone["height"] * 0.5, steps=3)
        page.mouse.move(x, y + zone["height"] * 0.7, steps=3)
        page.mouse.up()
        settled(page)
        high, low = (
            float(page.get_attribute(f'[data-handle="latency_ms-{end}"]', "aria-valuenow")) for end in ("high", "low")
        )
        left = [t for t in feasible(rich) if low <= t.values["latency_ms"] <= high]
        assert 0 < len(left) < len(feasible(rich))
        page.wait_for_function(
            "n => document.querySelector('#remain').textContent.startsWith(n + ' of')", arg=len(left)
        )
        page.focus('[data-handle="latency_ms-high"]')
        page.keyboard.press("ArrowDown")
        settled(page)
        moved = float(page.get_attribute('[data-handle="latency_ms-high"]', "aria-valuenow"))
        assert low <= moved < high
        page.keyboard.press("Escape")
        page.wait_for_function(
            "n => document.querySelector('#remain').textContent.startsWith(n + ' of')", arg=len(feasible(rich))
        )


def test_two_points_are_pinned_compared_and_downloaded(browser, report, rich):
    first, second = picks(rich).fastest, picks(rich).no_loss
    dominated = next(t for t in feasible(rich) if t.number not in {f.number for f in front(rich)})
    with opened(browser, report.html) as page:
        page.locator("#scatter").scroll_into_view_if_needed()
        for trial in (first, second):
            place = page.locator(f'#scatter [data-number="{trial.number}"]').bounding_box()
            page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
        page.wait_for_selector("text=B against A")
        rows = page.locator("table.compare tbody tr")
        assert rows.nth(1).inner_text().startswith(f"A: config {first.number}")
        assert rows.nth(2).inner_text().startswith(f"B: config {second.number}")
        change = second.values["macs"] / first.values["macs"] - 1
        assert f"{'+' if change > 0 else ''}{percent(change)}" in rows.nth(3).inner_text()
        page.click("summary:has-text('layers as a table')")
        head = page.inner_text(".layer-table thead")
        assert "A: kept" in head
        assert "B: kept" in head
        layer = next(iter(first.layers))
        row = page.locator(f".layer-table tr:has(th:text-is('{layer}'))").inner_text()
        for trial in (first, second):
            assert f"{trial.layers[layer].channels} of {trial.layers[layer].dense_channels} channels" in row
        for trial in (first, second):
            with page.expect_download() as caught:
                page.click(f'[data-download="{trial.number}"]')
            assert caught.value.suggested_filename == f"{trial.number:03d}.yaml"
            wanted = next(path for path in report.configs if path.name == f"{trial.number:03d}.yaml")
            assert Path(caught.value.path()).read_bytes() == wanted.read_bytes()
        page.select_option("#pin-1", "")
        page.select_option("#pin-0", str([t.number for t in shown_trials(rich)].index(dominated.number)))
        with page.expect_download() as caught:
            page.click(f'[data-download="{dominated.number}"]')
        assert Path(caught.value.path()).read_text(encoding="utf-8") == dominated.config.to_yaml()


def test_the_keyboard_reaches_points_layers_and_charts(browser, report, rich):
    with opened(browser, report.html) as page:
        page.focus("#scatter svg")
        page.keyboard.press("ArrowRight")
        settled(page)
        leftmost = min(
            (t for t in shown_trials(rich) if t.values["accuracy_drop"] <= 0.1), key=lambda t: t.values["latency_ms"]
        )
        said = page.inner_text(".spoken[role=status]")
        assert said.startswith(f"config {leftmost.number}")
        page.keyboard.press("Enter")
        settled(page)
        assert f"config {leftmost.number}" in page.inner_text("table.compare")
        page.focus(".skyline")
        page.keyboard.press("ArrowRight")
        settled(page)
        assert "stem.conv" in page.text_content(".spoken[role=status]")
        page.locator("#trust-prediction").scroll_into_view_if_needed()
        page.focus("#trust-prediction svg")
        page.keyboard.press("ArrowRight")
        settled(page)
        assert "predicted" in page.text_content(".spoken[role=status]")
        unnamed = page.eval_on_selector_all(
            "button, select, input, a, [tabindex='0'], [role=slider]",
            """nodes => nodes.filter(n => !n.hidden && !(n.textContent.trim() || n.labels?.length ||
                n.getAttribute("aria-label"))).map(n => n.outerHTML)""",
        )
        assert unnamed == []


@pytest.mark.parametrize("width", [360, 1280])
def test_no_name_breaks_the_page(browser, tmp_path, width):
    records = with_findings(EDGES["hostile"](), devices=HOSTILE[:2])
    path = tmp_path / "index.html"
    path.write_text(render_html(records), encoding="utf-8")
    with opened(browser, path, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        drawn = page.locator("body").inner_text()
        assert "<script>alert(1)</script>" in drawn
        assert "\u202e" not in page.text_content("body")
        assert page.evaluate("document.scripts.length") == 2


def not_finite():
    """A record in which a number is none."""
    records = run_records(12)
    broken = [
        t.model_copy(update={"values": t.values | {"latency_ms": bad}})
        for t, bad in zip(records.trials[1:4], (float("nan"), float("inf"), float("-inf")), strict=True)
    ]
    return records.model_copy(update={"trials": (records.trials[0], *broken, *records.trials[4:])})


def test_every_run_opens(browser, tmp_path):
    runs = {name: make() for name, make in EDGES.items() if name != "hostile"}
    runs |= {"old": read_records(GOLDEN), "not finite": not_finite(), "going on": run_records(9)}
    for name, records in runs.items():
        path = tmp_path / f"{name}.html"
        path.write_text(render_html(records), encoding="utf-8")
        with opened(browser, path, viewport={"width": 390, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
            shown = page.inner_text("body")
            assert not re.search(r"\b(undefined|null|NaN|Infinity|\[object)\b", shown), name
            placed = shown_trials(records)
            assert page.locator("#scatter").count() == bool(placed), name
            if any(trial.feasible and trial.origin != "dense" for trial in placed):
                assert page.locator("#scatter .mark").count() > 0, name


def test_themes_print_and_network(browser, report):
    with opened(browser, report.html, color_scheme="dark") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        page.click("#theme")
        light = page.evaluate(ground)
        assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)[:3]))
        page.click("#theme")
        page.emulate_media(media="print")
        assert page.evaluate(ground) == light
        assert not page.is_visible("#filters")
        assert page.is_visible("table.decide")
    own = browser.new_context()
    page = own.new_page()
    page.goto(report.html.as_uri())
    blocked = page.evaluate("""() => new Promise(done => {
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        fetch("http://127.0.0.1:9/").catch(() => {});
        setTimeout(() => done("nothing"), 5000);
    })""")
    assert blocked == "connect-src"
    own.close()


def test_numbers_are_written_as_python_writes_them(browser):
    script = (Path(formats.__file__).parent / "page" / "js" / "numbers.js").read_text(encoding="utf-8")
    values = [
        0,
        1,
        -1,
        0.5,
        3.14159,
        950,
        999.7,
        1234,
        12345.6,
        9.996e5,
        1e6,
        41.6e6,
        2.5e9,
        7e-5,
        -0.0004,
        0.99951,
        123456789,
    ]
    page = browser.new_page()
    found = page.evaluate(
        "(values) => {" + script + "return values.map(v => [number(v), count(v), count(v, 'B'), percent(v)]) }", values
    )
    page.close()
    wanted = [[formats.number(v), formats.count(v), formats.count(v, "B"), formats.percent(v)] for v in values]
    assert found == wanted


def test_limits_are_in_the_unit_of_the_axis():
    records = run_records(8, constraints={"accuracy_drop": 0.02, "macs": "50%", "score": "at least 0.97"})
    bounds = limits(records)
    assert bounds["macs"] == records.trials[0].values["macs"] / 2
    assert bounds["accuracy_drop"] == pytest.approx(records.study.dense_score - 0.97)
