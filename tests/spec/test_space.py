"""Spaces: the last rule that matches wins, key by key."""

import pytest

from autoprune.errors import SpecError
from autoprune.spec.document import parse_document
from autoprune.spec.library import names
from autoprune.spec.space import SpaceSpec, SparsityRange


def space(*rules):
    return SpaceSpec.model_validate({"schema": "autoprune/space/1", "name": "s", "rules": list(rules)})


EVERY = {"granularity": ["channel", "weight"], "criterion": ["magnitude_l1"], "sparsity": [0.5, 0.0]}


def test_the_last_match_wins_key_by_key():
    found = space(EVERY, {"names": "stem", "sparsity": [0.25]}, {"types": "Conv2d", "round_to": 8}).resolve(
        "stem", "Conv2d"
    )
    assert found.granularities == ("channel", "weight")
    assert found.sparsities == (0.25,)
    assert found.round_to == 8


def test_a_rule_that_does_not_match_changes_nothing():
    found = space(EVERY, {"names": "head", "sparsity": [0.25]}, {"types": "Linear", "round_to": 8}).resolve(
        "stem", "Conv2d"
    )
    assert (found.sparsities, found.round_to) == ((0.0, 0.5), 1)


def test_ignore_can_be_taken_back_by_a_later_rule():
    rules = [EVERY, {"names": "block*", "ignore": True}, {"names": "block2*", "ignore": False}]
    assert space(*rules).resolve("block1.conv", "Conv2d") is None
    assert space(*rules).resolve("block2.conv", "Conv2d") is not None


@pytest.mark.parametrize("missing", ["granularity", "criterion", "sparsity"])
def test_a_layer_without_all_three_is_left_dense(missing):
    assert space({key: value for key, value in EVERY.items() if key != missing}).resolve("a", "Conv2d") is None


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("conv1", "conv1", True),
        ("conv1", "conv10", False),
        ("*.conv1", "block.conv1", True),
        ("block?.conv", "block2.conv", True),
        ("block[12].conv", "block3.conv", False),
        ("Conv*", "conv1", False),
        ("re:conv", "block.conv1", True),
        ("re:^conv", "block.conv1", False),
        (r"re:block\.(1|2)$", "block.2", True),
    ],
)
def test_names_are_globs_or_regular_expressions(pattern, name, matches):
    assert (space({**EVERY, "names": pattern}).resolve(name, "Conv2d") is not None) == matches


def test_types_and_names_must_both_match():
    rule = {**EVERY, "types": ["Conv2d", "Linear"], "names": ["a", "b"]}
    assert [space(rule).resolve(n, t) is not None for n, t in (("a", "Linear"), ("a", "LSTM"), ("c", "Conv2d"))] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("low", "high", "step", "values"),
    [
        (0.0, 0.8, 0.1, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)),
        (0.1, 0.3, 0.1, (0.1, 0.2, 0.3)),
        (0.0, 0.25, 0.1, (0.0, 0.1, 0.2)),
        (0.5, 0.5, 0.1, (0.5,)),
        (0.0, 0.95, 0.05, tuple(round(i * 0.05, 10) for i in range(20))),
    ],
)
def test_a_range_holds_both_ends_and_never_more(low, high, step, values):
    assert SparsityRange(low=low, high=high, step=step).values() == values


def test_the_spaces_that_ship_can_be_read_and_bear_their_file_names():
    from autoprune.spec.document import load_document
    from autoprune.spec.library import find

    assert {"channels", "cnn-mixed", "weights"} <= set(names("search_spaces"))
    for name in names("search_spaces"):
        found = load_document(SpaceSpec, find("space", "search_spaces", name))
        assert (found.name, bool(found.description)) == (name, True)
        assert found.resolve("conv", "Conv2d") is not None


def test_round_to_auto_is_a_word_and_any_other_is_refused():
    found = space(EVERY, {"types": "Conv2d", "round_to": "auto"}).resolve("stem", "Conv2d")
    assert found.round_to == "auto"
    with pytest.raises(SpecError, match="round_to"):
        parse_document(
            SpaceSpec, {"schema": "autoprune/space/1", "name": "s", "rules": [{"round_to": "automatic"}]}, "s.yaml"
        )
