"""What the page carries: configs come out as they went in, importance finds what was put there, the table decides."""

import json
import random
import re

import numpy as np
import pytest
from synthetic_run import HOSTILE, layer_names, run_records

from autoprune.results.importance import importance
from autoprune.results.page.assets import REPORT_SCRIPTS, REPORT_STYLES, assets, embedded
from autoprune.results.page.decision import decision, study_facts
from autoprune.results.page.encode import ConfigPieces, page_data, shown_trials
from autoprune.results.picks import picks
from autoprune.results.summary import recommended
from autoprune.spec.config import LayerChoice, ModelIdentity, Provenance, PruningConfig, RecoverySpec, Threshold


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_a_config_are_its_yaml(seed):
    rng = random.Random(seed)
    pieces, configs = ConfigPieces(), []
    runs = ("a b", f"trial: {seed}", f"{{trial: {seed}, x", "x " * 20, "x " * 37)  # lines break by length
    names = [*HOSTILE, "conv1", "layers: {}", "null", "1", "? x", "a" * 200]
    for number in range(30):
        rng.shuffle(names)
        layers = {
            name: rng.choice(
                (
                    (LayerChoice(granularity="channel", criterion="taylor", sparsity=rng.randrange(10) / 10),),
                    (
                        LayerChoice(granularity="channel", criterion="magnitude_l1", sparsity=0.25),
                        LayerChoice(granularity="2:4", criterion="magnitude_l1"),
                    ),
                    (LayerChoice(granularity="filter", criterion="random", threshold=Threshold(std=1.5)),),
                )
            )
            for name in names[: rng.randrange(len(names) + 1)]
        }
        configs.append(
            PruningConfig(
                model=ModelIdentity(fingerprint="layers: {}"),
                seed=rng.randrange(3),
                recovery=RecoverySpec(batchnorm_samples=rng.choice((None, 512))),
                layers=layers,
                provenance=rng.choice((None, *(Provenance(run=run, trial=number, task=HOSTILE[2]) for run in runs))),
            )
        )
    joined = [pieces.text(pieces.of(config), number) for number, config in enumerate(configs)]
    assert joined == [config.to_yaml() for config in configs]


def test_states_of_layers_are_the_records(rich):
    data = page_data(rich)
    for row, trial in zip(data["layers"]["of"], shown_trials(rich), strict=True):
        for state, known, name in zip(row, data["layers"]["states"], data["layers"]["names"], strict=True):
            layer = trial.layers[name]
            channels, zeros, macs, dram, ms = known[state]
            assert (channels, macs) == (layer.channels, layer.macs)
            assert [zeros, dram, ms] == pytest.approx(
                [layer.weight_sparsity, layer.dram_bytes, layer.predicted_ms], rel=1e-3
            )


def leave_one_out(columns, target, strength):
    """Ridge, fitted n times by its normal equations: what the closed form must equal."""
    n, errors = len(target), []
    for i in range(n):
        keep = np.arange(n) != i
        x, y = columns[keep], target[keep]
        weights = np.linalg.solve(
            (x - x.mean(0)).T @ (x - x.mean(0)) + strength * np.eye(x.shape[1]), (x - x.mean(0)).T @ (y - y.mean())
        )
        errors.append(target[i] - y.mean() - (columns[i] - x.mean(0)) @ weights)
    return float(np.square(errors).sum())


def driven(drop_of, trials=80):
    """A run in which the accuracy drop follows from the sparsities of the groups by ``drop_of(rng, sparsities)``."""
    records, rng = run_records(trials), random.Random(3)
    changed = []
    for trial in records.trials:
        if trial.state == "complete" and trial.origin != "dense":
            fractions = {name: choices[0].sparsity for name, choices in trial.config.layers.items()}
            values = trial.values | {"accuracy_drop": drop_of(rng, fractions)}
            trial = trial.model_copy(update={"values": values})
        changed.append(trial)
    return records.model_copy(update={"trials": tuple(changed)})


def test_importance_finds_the_group_that_decides():
    records = driven(lambda _, fractions: fractions["stage1.0.conv1"] ** 3)
    found = importance(records)[0]
    assert found.metric == "accuracy_drop"
    assert found.shares[0][0] == "stage1.0.conv1"
    assert found.shares[0][1] > 0.9
    assert found.explained > 0.9
    assert sum(share for _, share in found.shares) == pytest.approx(1)


def test_importance_does_not_speak_of_noise():
    found = importance(driven(lambda rng, _: rng.random()))[0]
    assert not found.tells


def test_importance_is_cross_validated_as_it_says():
    records = driven(lambda _, fractions: fractions["stage1.0.conv1"] + 0.5 * fractions["stem.conv"], trials=40)
    one_way = [
        t.model_copy(
            update={
                "config": t.config.model_copy(
                    update={
                        "layers": {
                            name: (
                                LayerChoice(
                                    granularity="channel", criterion="taylor", sparsity=max(c[0].sparsity, 0.05)
                                ),
                            )
                            for name, c in t.config.layers.items()
                        }
                    }
                )
            }
        )
        if t.config is not None and t.origin != "dense"
        else t
        for t in records.trials
    ]
    found = importance(records.model_copy(update={"trials": tuple(one_way)}))[0]
    trials = [t for t in one_way if t.state == "complete" and t.origin != "dense"]
    x = np.array([[c[0].sparsity for c in t.config.layers.values()] for t in trials])
    x = (x - x.mean(0)) / x.std(0)
    drops = [t.values["accuracy_drop"] for t in trials]
    y = np.array([sum(d < e for d in drops) + (sum(d == e for d in drops) + 1) / 2 for e in drops])
    n = len(y)
    best = min(leave_one_out(x, y, 10.0**power * n) for power in range(-2, 5))
    by_mean = sum((y[i] - np.delete(y, i).mean()) ** 2 for i in range(n))
    assert found.trials == n
    assert found.explained == pytest.approx(1 - best / by_mean, abs=0.02)


def test_the_table_at_the_top_says_what_the_records_say(rich):
    table, chosen = decision(rich), picks(rich)
    assert [choice.number for choice in table.choices] == [None, *(t.number for t in chosen.trials())]
    assert [choice.number for choice in table.choices if choice.take] == [recommended(rich).number]
    rows = dict(table.rows)
    dense = rich.trials[0]
    for column, trial in enumerate(chosen.trials(), start=1):
        assert rows["MACs"][column].share == trial.values["macs"] / dense.values["macs"]
        assert f"{trial.latency.ratio_low:.2f}–{trial.latency.ratio_high:.2f}" in rows["Latency"][column].detail
        assert rows["Test score"][column].text == (
            f"{trial.test_score:.2%}".replace("%", " %") if trial.test_score else "–"
        )
    facts = dict(study_facts(rich))
    assert facts["Trials"].startswith("60 (1 failed, 1 stopped)")
    assert facts["Batch"] == "1"


def test_a_run_that_goes_on_says_how_far_it_is():
    assert "9 of 40 wanted" in dict(study_facts(run_records(9)))["Trials"]


def test_where_nothing_is_free_the_knee_is_taken():
    records = run_records(40)
    lossy = tuple(
        t.model_copy(update={"values": t.values | {"accuracy_drop": max(t.values["accuracy_drop"], 0.002)}})
        if t.state == "complete" and t.origin != "dense"
        else t
        for t in records.trials
    )
    records = records.model_copy(update={"trials": lossy})
    assert recommended(records).number == picks(records).knee.number
    assert decision(records).notes


def test_scripts_and_styles_cannot_close_their_element():
    built = assets({}, REPORT_SCRIPTS, REPORT_STYLES)
    assert not re.search(r"</(script|style)|<!--", str(built.script) + str(built.style), re.IGNORECASE)


def test_data_cannot_leave_its_element():
    texts = [*HOSTILE, "</script>", "<!--", "\u2028", "\u202e", "]]>"]
    text = str(embedded({"x": texts}))
    assert not re.search("[<>&\u2028\u202e]", text)
    assert json.loads(text)["x"] == texts


def test_two_thousand_trials_of_sixty_groups_stay_small():
    records = run_records(80, names=layer_names(60))
    assert len(str(embedded(page_data(records)))) / 80 * 2000 < 15e6, "more trials share more pieces"
