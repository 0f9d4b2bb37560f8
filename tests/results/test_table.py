"""Numbers and tables as people read them."""

import io
import re

import pytest
from rich.console import Console
from synthetic_run import HOSTILE, run_records

from autoprune.results.formats import ScoreFormat, count, interval, number, percent, plain, seconds, speed
from autoprune.results.picks import picks
from autoprune.results.table import (
    Cell,
    Column,
    Row,
    Table,
    front_table,
    picks_table,
    to_markdown,
    to_rich,
    trial_table,
)
from autoprune.spec.front import dense_trial, front


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(1.2), "1.20"),
        (number(456.7), "457"),
        (number(0.0123), "0.0123"),
        (number(-0.5), "−0.500"),
        (number(0), "0"),
        (number(None), "–"),
        (number(float("nan")), "–"),
        (number(1e-7), "1.00e−07"),
        (count(1_234_567), "1.23 M"),
        (count(999_900), "1.00 M"),
        (count(950), "950"),
        (number(0.9999), "1.00"),
        (number(12345.6), "12346"),
        (count(1.089e6, "B"), "1.09 MB"),
        (percent(0.45), "45 %"),
        (percent(0.004), "0.4 %"),
        (percent(1.0), "100 %"),
        (seconds(0.012), "12.0 ms"),
        (seconds(125), "2 min 5 s"),
        (seconds(3_780), "1 h 3 min"),
        (plain("a\u202eb\x00c"), "a�b�c"),
        (len(plain("x" * 300, 80)), 80),
    ],
)
def test_numbers(text, expected):
    assert text == expected


def test_accuracies_are_percent_and_losses_are_not():
    accuracy, loss = ScoreFormat(True, True), ScoreFormat(False, False)
    assert (accuracy.score(0.9778), accuracy.drop(-0.0022)) == ("97.78 %", "−0.22 pp")
    assert (loss.score(2.3456), loss.drop(0.0123)) == ("2.346", "0.0123")
    assert accuracy.drop(-0.00001) == "0.00 pp"


def test_a_ratio_whose_interval_holds_one_is_not_faster(records):
    latency = records.trials[3].latency.model_copy(update={"ratio": 0.99, "ratio_low": 0.97, "ratio_high": 1.01})
    assert speed(latency) == "not measurably faster (ratio 0.97–1.01)"
    assert speed(latency.model_copy(update={"ratio": 0.5, "ratio_low": 0.49, "ratio_high": 0.51})) == "2× faster"
    assert interval(latency) == "0.97–1.01"


def test_a_ratio_that_did_not_become_precise_is_told_by_its_ends(records):
    loose = {"ratio": 0.13, "ratio_low": 0.113, "ratio_high": 0.495, "converged": False}
    latency = records.trials[3].latency.model_copy(update=loose)
    assert speed(latency) == "2 to 8.8× faster"
    slow = latency.model_copy(update={"ratio": 1.4, "ratio_low": 1.2, "ratio_high": 1.9})
    assert speed(slow) == "1.20 to 1.90× as slow"
    assert speed(latency.model_copy(update={"pairs": 0})) == "7.7× faster", "modelled: there is no precision to miss"
    trial = records.trials[3].model_copy(update={"latency": latency})
    console = Console(width=100, file=io.StringIO())
    console.print(to_rich(trial_table(records, [trial], "One"), 100))
    assert "0.13× ?" in console.file.getvalue()


def test_dense_stands_first_and_the_rest_by_drop(records):
    table = front_table(records)
    assert [row.kind for row in table.rows].count("dense") == 1
    assert table.rows[0].cells[0].text == "dense"
    by_drop = sorted(front(records), key=lambda t: (t.values["accuracy_drop"], t.number))
    assert [row.cells[0].text for row in table.rows[1:]] == [str(t.number) for t in by_drop if t.origin != "dense"]


def test_macs_stand_beside_their_share_of_dense(records):
    table = front_table(records)
    column = [c.title for c in table.columns].index("MACs")
    trial = next(t for t in records.trials if str(t.number) == table.rows[1].cells[0].text)
    share = trial.values["macs"] / dense_trial(records).values["macs"]
    assert table.rows[1].cells[column] == Cell(count(trial.values["macs"]), percent(share), relative=percent(share))


def test_a_narrow_terminal_shows_whole_shares_of_dense(records):
    stream = io.StringIO()
    Console(file=stream, width=80).print(to_rich(front_table(records), width=80))
    shown = stream.getvalue()
    assert "…" not in shown
    dense = dense_trial(records).values["macs"]
    assert all(percent(t.values["macs"] / dense) in shown for t in front(records) if t.origin != "dense")
    assert all(text in shown for text in dense_texts(front_table(records), wide=False)), "with its unit"


@pytest.mark.parametrize("width", [30, 50, 60, 80, 100, 129, 130, 160])
def test_a_table_that_is_too_wide_loses_columns_and_no_unit(width):
    records = run_records(30, objectives=("accuracy_drop", "macs", "latency_ms", "energy_mj", "params", "size_bytes"))
    table = front_table(records)
    stream = io.StringIO()
    Console(file=stream, width=width).print(to_rich(table, width))
    shown = stream.getvalue()
    dense = next(line for line in shown.splitlines() if line.strip().startswith("dense"))
    texts = dense_texts(table, wide=width == 160)
    kept = [cell.partition(" (")[0] for cell in re.split(r"  +", dense.strip())]
    assert kept == texts[: len(kept)]
    assert len(kept) >= 2
    more = re.search(r"\((\d+) more columns? where there is room\)", " ".join(shown.split()))
    assert len(kept) + int(more[1] if more else 0) == len(texts)
    assert (more is None) == (width >= 80)


def dense_texts(table, wide):
    return [c.text for column, c in zip(table.columns, table.rows[0].cells, strict=True) if wide or not column.wide]


def test_picks_stand_in_their_order(records):
    chosen = picks(records)
    assert [row.cells[0].text for row in picks_table(records).rows] == [
        "dense",
        *(str(t.number) for t in chosen.trials()),
    ]


def test_a_column_that_nobody_fills_is_left_out():
    records = run_records(3)
    trials = tuple(t.model_copy(update={"test_score": None, "energy": None}) for t in records.trials)
    titles = [c.title for c in front_table(records.model_copy(update={"trials": trials})).columns]
    assert "test score" not in titles
    assert "score" in titles


def test_markdown_and_terminal_take_no_markup_from_names():
    rows = tuple(Row((Cell(name), Cell("[bold]1[/bold]", name))) for name in HOSTILE)
    table = Table("names", (Column("name", numeric=False), Column("x")), rows)
    lines = to_markdown(table).splitlines()
    assert len(lines) == 2 + len(HOSTILE)
    assert "<script" not in to_markdown(table)
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines)
    stream = io.StringIO()
    Console(file=stream, width=2000).print(to_rich(table))
    assert "[bold]1[/bold]" in stream.getvalue()


def test_a_narrow_terminal_cuts_no_number() -> None:
    table = Table(
        "Wide",
        (Column("module", numeric=False), *(Column(f"column {n}") for n in range(6)), Column("said", numeric=False)),
        (Row((Cell("blocks.0.attention.out (Linear)"), *(Cell("123.45 ms") for _ in range(6)), Cell("no gain here"))),),
    )
    stream = io.StringIO()
    Console(file=stream, width=100).print(to_rich(table, width=100))
    assert stream.getvalue().count("123.45 ms") == 6
    assert "…" not in stream.getvalue()
