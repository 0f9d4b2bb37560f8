"""Documents: YAML 1.2 on the way in and out, and every mistake in one sentence with file, key and what is allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import SpecError
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import load_document, parse_document, read_yaml
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec


def test_a_changed_copy_forgets_what_was_computed_from_the_old_values():
    layers = {"a": {"granularity": "weight", "criterion": "random", "sparsity": 0.5}}
    config = PruningConfig(model={"fingerprint": "x"}, layers=layers)
    first = config.signature
    assert config.model_copy(update={"seed": 1}).signature != first == config.signature


def read(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"),  # YAML 1.1: 124
        ("190:20:30", "190:20:30"),
        ("1e-3", 0.001),  # YAML 1.1: text
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("no", "no"),  # YAML 1.1: False
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("012", 12),  # YAML 1.1: 10
        ("0o14", 12),
        ("08", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        ("~", None),
        ("", None),
        ("'2'", "2"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(tmp_path, text, value):
    found = read(tmp_path, f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


@given(
    st.lists(
        st.sampled_from(
            [
                "2:4",
                "1e-3",
                "no",
                "012",
                "true",
                "channel",
                "~",
                "0x1F",
                "null",
                "1_0",
                "0o7",
                "08",
                "-",
                "a: b",
                "#",
                "",
            ]
        ),
        min_size=1,
    )
)
def test_text_survives_being_written_and_read(tmp_path_factory, names):
    rules = [{"names": names, "granularity": "2:4", "criterion": "x", "sparsity": [0.1, 0.30000000000000004, 1e-3]}]
    space = SpaceSpec.model_validate({"schema": "autoprune/space/1", "name": "no", "rules": rules})
    path = tmp_path_factory.mktemp("spec") / "space.yaml"
    path.write_text(space.to_yaml(), encoding="utf-8")
    assert load_document(SpaceSpec, path) == space


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path):
    with pytest.raises(SpecError, match=r"a\.yaml:3: not valid YAML \(key 'a' stands twice\)"):
        read(tmp_path, "a: 1\nb: 2\na: 3\n")


@pytest.mark.parametrize("text", ["a: [1", "a:\n\t- b", "a: b: c", "&x", "a: \x07", "!!python/object:os.system {}"])
def test_what_is_no_yaml_is_one_sentence(tmp_path, text):
    with pytest.raises(SpecError, match=r"a\.yaml") as caught:
        parse_document(StudySpec, read(tmp_path, text), "a.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "shown"), [(None, "nothing"), ([1], r"\[1\]"), ("text", "'text'"), (3, "3")])
def test_a_document_is_a_mapping(data, shown):
    with pytest.raises(SpecError, match=f"a.yaml: holds {shown} where a mapping"):
        parse_document(StudySpec, data, "a.yaml")


def test_a_missing_file_a_folder_and_bytes_are_told_apart(tmp_path):
    with pytest.raises(SpecError, match="no such file"):
        read_yaml(tmp_path / "nope.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="UTF-8"):
        read_yaml(tmp_path / "b.yaml")


STUDY = {"schema": "autoprune/study/1", "task": "a:b", "space": "channels"}
SPACE = {"schema": "autoprune/space/1", "name": "s"}
CONFIG = {"schema": "autoprune/config/1", "model": {"fingerprint": "x"}}
RULE = {"granularity": "weight", "criterion": "random", "sparsity": [0.0, 0.5]}
CHOICE = {"granularity": "weight", "criterion": "random", "sparsity": 0.5}


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        (StudySpec, STUDY | {"objektives": ["macs"]}, "unknown key 'objektives'; did you mean 'objectives'?"),
        (StudySpec, STUDY | {"search": {"trals": 3}}, "unknown key 'search.trals'; did you mean 'trials'?"),
        (StudySpec, STUDY | {"search": {"trials": "3"}}, "key 'search.trials' is '3': give a whole number"),
        (StudySpec, STUDY | {"search": {"trials": True}}, "key 'search.trials' is True: give a whole number"),
        (StudySpec, STUDY | {"search": {"trials": 1.5}}, "key 'search.trials' is 1.5: give a whole number"),
        (StudySpec, STUDY | {"search": [1]}, "key 'search' is [1]: give a mapping of keys to values"),
        (StudySpec, STUDY | {"search": {"timeout": "1.2.3s"}}, "key 'search.timeout' is '1.2.3s': a time is a number"),
        (StudySpec, STUDY | {"objectives": "macs"}, "key 'objectives' is 'macs': give a list"),
        (StudySpec, STUDY | {"objectives": ["mac"]}, "unknown objective 'mac'; did you mean 'macs'?"),
        (StudySpec, STUDY | {"constraints": {"macs": True}}, "key 'constraints.macs' is True: give a number or text"),
        (StudySpec, STUDY | {"constraints": {"mac": 1}}, "unknown metric 'mac' in constraints; did you mean 'macs'?"),
        (StudySpec, STUDY | {"executor": {"rai": "auto"}}, "unknown key 'executor.rai'; did you mean 'ray'?"),
        (StudySpec, {"schema": "autoprune/study/1", "space": "x"}, "key 'task' is missing; add it"),
        (StudySpec, STUDY | {"task": "digits"}, "key 'task' is 'digits': a task is package.module:function"),
        (StudySpec, STUDY | {"schema": "autoprune/study/9"}, "schema is 'autoprune/study/9' where 'autoprune/study/1'"),
        (
            StudySpec,
            STUDY | {"space": SPACE | {"rules": [RULE | {"granularty": "weight"}]}},
            "unknown key 'space.rules.0.granularty'; did you mean 'granularity'?",
        ),
        (
            SpaceSpec,
            SPACE | {"rules": [RULE | {"sparsity": [0.5, 1.0]}]},
            "key 'rules.0.sparsity.1' is 1.0: input should",
        ),
        (SpaceSpec, SPACE | {"rules": [RULE | {"sparsity": {"low": 0.5, "high": 0.1}}]}, "low 0.5 is above high 0.1"),
        (
            SpaceSpec,
            SPACE | {"rules": [RULE | {"sparsity": {"lo": 0, "high": 1}}]},
            "'rules.0.sparsity.lo'; did you mean",
        ),
        (SpaceSpec, SPACE | {"rules": [RULE | {"granularity": "4:2"}]}, "'4:2' is no N:M pattern"),
        (SpaceSpec, SPACE | {"rules": [RULE | {"names": "re:("}]}, "'re:(' is not a regular expression"),
        (SpaceSpec, SPACE | {"rules": [RULE | {"criterion": []}]}, "the list is empty; name at least one choice"),
        (
            PruningConfig,
            CONFIG | {"layers": {"a": CHOICE | {"sparsity": 1}}},
            "key 'layers.a.sparsity' is 1: input should",
        ),
        (
            PruningConfig,
            CONFIG | {"layers": {"a": CHOICE | {"sparsity": -0.1}}},
            "key 'layers.a.sparsity' is -0.1: input",
        ),
        (
            PruningConfig,
            CONFIG | {"layers": {"a": CHOICE | {"sparsity": "0.5"}}},
            "key 'layers.a.sparsity' is '0.5': give a",
        ),
        (
            PruningConfig,
            CONFIG | {"layers": {"a": {"granularity": "weight", "kriterion": "random", "sparsity": 0.5}}},
            "unknown key 'layers.a.kriterion'; did you mean 'criterion'?",
        ),
        (
            PruningConfig,
            CONFIG | {"layers": {"a": [CHOICE, CHOICE | {"sparsity": 1}]}},
            "key 'layers.a.1.sparsity' is 1",
        ),
        (PruningConfig, CONFIG | {"layers": {"a": []}}, "key 'layers.a' is []"),
        (PruningConfig, CONFIG | {"layers": {"a": {"granularity": "weight", "criterion": "x"}}}, "needs a sparsity"),
        (PruningConfig, CONFIG | {"layers": {"a": CHOICE | {"granularity": "1:4"}}}, "1:4 removes exactly 0.75"),
    ],
)
def test_a_mistake_names_file_key_value_and_remedy(kind, data, sentence):
    with pytest.raises(SpecError) as caught:
        parse_document(kind, data, "dir/a.yaml")
    assert str(caught.value).startswith("dir/a.yaml: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([*StudySpec.model_fields, "extra"]),
)
def test_no_value_anywhere_is_more_than_one_sentence(value, key):
    said = "a.yaml: accepted"
    try:
        parse_document(StudySpec, STUDY | {"schema" if key == "schema_" else key: value}, "a.yaml")
    except SpecError as error:  # anything else fails the test
        said = str(error)
    assert said.startswith("a.yaml: ")
    assert "\n" not in said


def test_a_config_with_two_entries_is_written_as_it_is_read():
    channel = {"granularity": "channel", "criterion": "random", "sparsity": 0.25}
    data = CONFIG | {"layers": {"a": [channel, {"granularity": "2:4", "criterion": "random"}], "b": CHOICE}}
    config = parse_document(PruningConfig, data, "a.yaml")
    assert config.to_data()["layers"] == data["layers"]
    assert [(name, choice.granularity, choice.fraction) for name, choice in config.choices()] == [
        ("a", "channel", 0.25),
        ("a", "2:4", 0.5),
        ("b", "weight", 0.5),
    ]


def test_where_a_config_comes_from_is_not_what_it_does():
    config = parse_document(PruningConfig, CONFIG | {"layers": {"a": CHOICE}}, "a.yaml")
    other = parse_document(PruningConfig, CONFIG | {"layers": {"a": CHOICE}, "provenance": {"trial": 3}}, "a.yaml")
    assert config != other
    assert config.signature == other.signature
