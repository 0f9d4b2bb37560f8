"""The rendered report: complete, safe, offline, and the same bytes every time."""

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import HOSTILE, run_records, with_findings

from autoprune.errors import RunDirectoryError
from autoprune.results.export import FrontDocument
from autoprune.results.facts import facts
from autoprune.results.markdown import render_markdown
from autoprune.results.picks import picks
from autoprune.results.report import render_html, write_report
from autoprune.results.summary import headline
from autoprune.spec.config import load_config
from autoprune.spec.front import dense_trial, front, hypervolume_of
from autoprune.spec.record import read_records

TESTS = Path(__file__).parent.parent
SIX = ("accuracy_drop", "macs", "latency_ms", "energy_mj", "params", "size_bytes")


class Page(HTMLParser):
    """Collects tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.hidden = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden = self.hidden and tag not in ("script", "style")

    def handle_data(self, data):
        if not self.hidden:
            self.text.append(data)


def read_csv(path):
    return csv.DictReader(path.read_text(encoding="utf-8").splitlines())


def all_infeasible():
    records = run_records(12)
    broken = tuple(t.model_copy(update={"violations": {"latency_ms": 1.0}}) for t in records.trials)
    return records.model_copy(update={"trials": broken})


def no_dense():
    records = run_records(12)
    study = records.study.model_copy(update={"reference": {}})
    return records.model_copy(update={"study": study, "trials": records.trials[1:]})


def hostile():
    return run_records(
        names=list(HOSTILE),
        task="<script>alert('task')</script>/x.py:f",
        errors=tuple(f"Traceback\n{name}" for name in HOSTILE),
        device_title=HOSTILE[1],
        machine=HOSTILE[0],
        notes=HOSTILE,
        versions={HOSTILE[0]: HOSTILE[1]},
        pinned={name: (name,) for name in HOSTILE},
    )


def no_number():
    """Every float of one trial is NaN, as a storage that was mended by hand may hold it."""
    records = with_findings(run_records(12))
    nan = float("nan")
    trial = records.trials[9]
    broken = trial.model_copy(
        update={
            "values": dict.fromkeys(trial.values, nan),
            "score": nan,
            "test_score": nan,
            "latency": trial.latency.model_copy(update={"ms": nan, "ratio": nan, "ratio_low": nan, "ratio_high": nan}),
        }
    )
    return records.model_copy(update={"trials": (*records.trials[:9], broken, *records.trials[10:])})


EDGES = {
    "no trials": lambda: run_records(0),
    "dense alone": lambda: run_records(1),
    "two trials": lambda: run_records(2),
    "many trials": lambda: run_records(200),
    "all infeasible": all_infeasible,
    "no dense": no_dense,
    "one objective": lambda: run_records(12, objectives=("accuracy_drop",)),
    "one cost": lambda: run_records(12, objectives=("macs",)),
    "six objectives": lambda: run_records(12, objectives=SIX),
    "a loss": lambda: run_records(12, higher_is_better=False, dense_score=2.3),
    "no groups": lambda: run_records(12, groups={}, pinned={}, notes=(), versions={}),
    "hostile": hostile,
    "all findings": lambda: with_findings(run_records(30)),
    "findings and the dense model alone": lambda: with_findings(run_records(1)),
    "hostile findings": lambda: with_findings(hostile(), devices=HOSTILE[:2]),
    "still going on": lambda: with_findings(run_records(9)),
    "no number": no_number,
    "an old record": lambda: read_records(TESTS / "golden" / "records-1.jsonl"),
}


@pytest.mark.parametrize("edge", EDGES)
def test_every_run_renders(edge, tmp_path):
    records = EDGES[edge]()
    paths = write_report(records, tmp_path / "report")
    html = paths.html.read_text(encoding="utf-8")
    page = Page(html)
    assert paths.html.stat().st_size < 2e6
    assert [tag for tag, _ in page.tags].count("h1") == 1
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (tmp_path / "report" / link).is_file()
    assert "undefined" not in "".join(page.text).lower()
    assert "nan" not in re.findall(r"\w+", "".join(page.text).lower())
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL).group(1))
    assert {figure["key"] for figure in data["figures"]} <= set(ids)
    text = paths.markdown.read_text(encoding="utf-8")
    assert text.startswith("# Pruning report")
    assert "nan" not in re.findall(r"\w+", text.lower())
    assert "nan" not in paths.trials_csv.read_text(encoding="utf-8").lower().split(",")
    FrontDocument.model_validate_json(paths.front_json.read_text(encoding="utf-8"))


def test_the_same_records_give_the_same_bytes(records, tmp_path):
    contents = []
    for name in ("one", "two"):
        write_report(records, tmp_path / name)
        folder = tmp_path / name
        contents.append({str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()})
    assert contents[0] == contents[1]
    assert not [name for name in contents[0] if name.endswith(".part")]


def test_the_page_runs_only_its_own_scripts_and_loads_nothing(records):
    html = render_html(records)
    page = Page(html)
    policy = next(
        a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert "http" not in policy
    assert not [attrs for _, attrs in page.tags if "src" in attrs or attrs.get("rel")]
    assert not [k for _, attrs in page.tags for k in attrs if k.startswith("on")]
    assert "unsafe" not in policy
    assert not [attrs for _, attrs in page.tags if "style" in attrs]
    addresses = set(re.findall(r"https?://[^\s\"'<]*", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "a name space, which nothing fetches"
    assert "url(" not in html
    assert "@import" not in html


def test_hostile_names_stay_text():
    records = hostile()
    html = render_html(records)
    page = Page(html)
    assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert [tag for tag, _ in page.tags].count("script") == 2  # data, code
    for name in ("<script>alert", "<img", "<svg onload", "</pre></script>", "\u202e"):
        assert name not in html
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert "{{ 7*7 }}" in "".join(page.text)


@pytest.mark.parametrize("edge", ["hostile", "hostile findings"])
def test_hostile_names_stay_text_in_markdown(edge):
    text = render_markdown(EDGES[edge]())
    outside_code = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<\w", outside_code)
    assert not re.search(r"(?<!\\)`", outside_code)
    assert "\u202e" not in text
    for table in re.findall(r"(?:^\|.*\n)+", outside_code, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, "a name broke a table"


def test_csv_and_json_are_the_records(records, tmp_path):
    paths = write_report(records, tmp_path)
    rows = list(read_csv(paths.trials_csv))
    assert [int(row["number"]) for row in rows] == [t.number for t in records.trials]
    for row, trial in zip(rows, records.trials, strict=True):
        assert row["state"] == trial.state
        assert row["feasible"] == str(trial.feasible)
        for name, value in trial.values.items():
            assert float(row[name]) == value
    best = list(read_csv(paths.front_csv))
    assert [int(row["number"]) for row in best] == [t.number for t in front(records)]
    document = FrontDocument.model_validate_json(paths.front_json.read_text(encoding="utf-8"))
    assert [entry.number for entry in document.front] == [t.number for t in front(records)]
    assert document.front[-1].values == front(records)[-1].values
    assert document.hypervolume == hypervolume_of(records)
    assert document.picks.knee == picks(records).knee.number
    assert document.dense.number == dense_trial(records).number
    assert json.loads(paths.front_json.read_text(encoding="utf-8"))["schema"] == "autoprune/front/1"


def test_an_old_front_json_still_loads():
    """Golden file of the schema; ``make_golden.py`` beside it made it."""
    text = (Path(__file__).parent / "golden" / "front-1.json").read_text(encoding="utf-8")
    document = FrontDocument.model_validate_json(text)
    assert document.to_data() == json.loads(text)
    assert (document.trials, document.picks.fastest) == (5, 4)


def test_configs_load_again_and_stale_ones_go(records, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "777.yaml").write_text("old")
    (tmp_path / "configs" / "mine.yaml").write_text("kept")
    paths = write_report(records, tmp_path)
    pruned = [t for t in front(records) if t.origin != "dense"]
    assert [p.name for p in paths.configs] == [f"{t.number:03d}.yaml" for t in pruned]
    assert load_config(paths.configs[0]) == pruned[0].config
    assert sorted(p.name for p in (tmp_path / "configs").iterdir()) == sorted(
        [*(p.name for p in paths.configs), "mine.yaml"]
    )


def test_the_headline_gives_numbers(records):
    chosen, dense = picks(records), dense_trial(records)
    saved = round((1 - chosen.no_loss.values["macs"] / dense.values["macs"]) * 100)
    main = headline(records).main
    assert main.startswith(f"Take config {chosen.no_loss.number}: {saved} % fewer MACs, ")
    assert "× faster" in main
    assert "at no measured loss on validation data (test " in main


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        ("no trials", "No trial has finished yet"),
        ("dense alone", "Nothing is gained yet"),
        ("all infeasible", "break a constraint (latency_ms in 9)"),
        ("no dense", "dense model has not been scored"),
    ],
)
def test_the_headline_is_plain_where_nothing_is_gained(edge, words):
    assert words in headline(EDGES[edge]()).main


def test_a_missed_precision_is_told_with_its_reason(records):
    reason = "the budget of 3 s ended after 40 pairs at ±3.1% where ±2.0% is wanted"
    loose = records.trials[3]
    latency = loose.latency.model_copy(update={"converged": False, "reason": reason})
    trials = (*records.trials[:3], loose.model_copy(update={"latency": latency}), *records.trials[4:])
    told = next(f.sentences for f in facts(records.model_copy(update={"trials": trials})) if f.title == "Latency")
    assert told[-1] == f"T{reason[1:]} (1 trials)."


def test_a_slow_machine_is_no_missed_precision(records):
    before = " ".join(latency_facts(records))
    once = " ".join(latency_facts(with_latency(records, {3: {"converged": False, "reason": "slow", "speed": 0.57}})))
    assert ", in 1 the machine was slow throughout (57 % of its speed); these are marked ?." in once
    assert "slow throughout" not in before
    assert imprecise(once) == imprecise(before)
    speeds = {number: {"converged": False, "reason": "slow", "speed": 0.5 + number / 100} for number in (3, 4)}
    assert "in 2 the machine was slow throughout (53 % to 54 % of its speed)" in " ".join(
        latency_facts(with_latency(records, speeds))
    )


def test_trials_measured_at_different_speeds_are_told(records):
    every = {t.number: {"dense_ms": 2.0} for t in records.trials if t.latency}
    assert "was over" not in " ".join(latency_facts(with_latency(records, every)))
    found = " ".join(latency_facts(with_latency(records, {**every, 3: {"dense_ms": 2.6}, 4: {"dense_ms": 2.4}})))
    assert "took 2.00 to 2.60 ms in the trials' own measurements; in 1 of" in found
    told_already = {3: {"dense_ms": 2.6, "speed": 0.77, "converged": False, "reason": "slow"}}
    assert "was over" not in " ".join(latency_facts(with_latency(records, {**every, **told_already})))


def latency_facts(records):
    return next(f.sentences for f in facts(records) if f.title == "Latency")


def with_latency(records, changes):
    """Return the records with some figures of some trials' latencies changed."""
    trials = [
        t.model_copy(update={"latency": t.latency.model_copy(update=changes[t.number])}) if t.number in changes else t
        for t in records.trials
    ]
    return records.model_copy(update={"trials": tuple(trials)})


def imprecise(told):
    return re.search(r"In (\d+) of \d+ trials it did not become", told)[1]


def test_pairs_of_a_slow_machine_are_told(records):
    slow = records.trials[3]
    latency = slow.latency.model_copy(update={"pairs": 30, "slowed": 70})
    trials = (*records.trials[:3], slow.model_copy(update={"latency": latency}), *records.trials[4:])
    told = next(f.sentences for f in facts(records.model_copy(update={"trials": trials})) if f.title == "Latency")
    others = [
        t.latency.pairs for t in records.trials if t.latency and t.latency.pairs and t.origin != "dense" and t != slow
    ]
    part = 70 / (100 + sum(others))
    assert (
        f"{part:.0%}".replace("%", " %") + f" of the pairs, in 1 of {len(others) + 1} trials, do not count" in told[-1]
    )


def test_the_numbers_name_their_meters(records):
    told = {fact.title: " ".join(fact.sentences) for fact in facts(records)}
    assert "torch 2.13.0, 1 thread, batch 1" in told["Latency"]
    assert "95 % interval" in told["Latency"]
    assert "uncalibrated: ranking only" in told["Energy"]
    assert "aten::scaled_dot_product_attention (2×)" in told["MACs"]
    assert "seed 7" in told["Search"]
    html = render_html(records)
    assert "MACs-only baseline" in html
    assert "time-only baseline" in html
    assert "RuntimeError: out of memory" in html


def test_a_modelled_latency_is_not_called_measured(records):
    def modelled(trial):
        if trial.latency is None:
            return trial
        return trial.model_copy(
            update={"latency": trial.latency.model_copy(update={"pairs": 0, "meter": "modelled: roofline"})}
        )

    run = records.model_copy(update={"trials": tuple(modelled(t) for t in records.trials)})
    told = {fact.title: " ".join(fact.sentences) for fact in facts(run)}
    assert "pairs" not in told["Latency"]
    assert "faster (modelled)" in headline(run).main


def test_a_folder_that_cannot_be_made_is_told(records, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="writable"):
        write_report(records, tmp_path / "file" / "report")


def test_a_report_needs_neither_torch_nor_optuna():
    code = (
        "import sys, autoprune.results.report, autoprune.results.table, autoprune.pareto\n"
        "print([m for m in ('torch', 'optuna', 'ray', 'fvcore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
