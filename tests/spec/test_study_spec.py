"""Studies: bounds, names of files and of shipped documents, and what makes two runs the same study."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import SpecError, UnknownNameError
from autoprune.spec import library
from autoprune.spec.executor import TargetSpec, ray_options
from autoprune.spec.objectives import METRICS, parse_bound
from autoprune.spec.study import StudySpec, load_study, resolve_study


def write(folder, **changes):
    data = {"task": "tasks.py:task", "space": "channels", "device": "local-cpu"} | changes
    path = folder / "study.yaml"
    path.write_text("schema: autoprune/study/1\n" + "".join(f"{key}: {value}\n" for key, value in data.items()))
    return path


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False), st.floats(0, 1e9))
def test_a_number_bounds_as_it_stands(value, dense):
    assert parse_bound("macs", value).limit(dense).value == value


@given(st.integers(1, 500), st.floats(1e-6, 1e6))
def test_a_percentage_is_of_the_size_of_the_dense_value(percent, dense):
    bound = parse_bound("accuracy_drop", f"{percent}%")
    assert bound.limit(dense).value == pytest.approx(percent / 100 * abs(dense))
    assert bound.limit(dense).value > 0


def test_a_percentage_of_zero_bounds_nothing():
    with pytest.raises(SpecError, match="5% of the dense value 0 bounds nothing; give a number"):
        parse_bound("accuracy_drop", "5%").limit(0.0)


@pytest.mark.parametrize(
    "text", ["fifty", "%", "1.2.3%", "-5%", "60 percent", "", "0%", -1.0, float("nan"), float("inf")]
)
def test_what_bounds_nothing_is_refused(text):
    with pytest.raises(ValueError, match="the bound on macs is"):
        parse_bound("macs", text)


@pytest.mark.parametrize(("text", "value"), [("60%", 0.6), (" 2.5 % ", 0.025), ("1e1%", 0.1), ("100%", 1.0)])
def test_percentages_are_read(text, value):
    bound = parse_bound("latency_ms", text)
    assert (bound.relative, bound.value) == (True, pytest.approx(value))


@pytest.mark.parametrize(
    ("metric", "text", "higher_is_better", "inside", "beyond"),
    [
        ("latency_ms", "at most 60%", True, 6.0, 6.1),
        ("latency_ms", "<= 6", True, 6.0, 6.1),
        ("accuracy", "at least 0.9", True, 0.9, 0.89),
        ("accuracy", ">= 9%", True, 0.9, 0.89),
        ("score", 0.9, True, 0.9, 0.89),
        ("score", 0.9, False, 0.9, 0.91),
        ("score", "at most -2", False, -2.0, -1.9),
    ],
)
def test_a_bound_may_say_its_direction(metric, text, higher_is_better, inside, beyond):
    limit = parse_bound(metric, text).limit(10.0, higher_is_better)
    assert limit.excess(inside) == pytest.approx(0)
    assert limit.excess(beyond) == pytest.approx(abs(beyond - inside))
    assert limit.scale > 0


@pytest.mark.parametrize(
    ("metric", "text", "sentence"),
    [
        ("macs", "at least 5", "less macs is better; give an upper bound, as in 'at most 60%'"),
        ("accuracy", "roughly 0.9", "with or without a direction such as 'at least 0.9'"),
        ("accuracy", "-5%", "give a finite number of at least 0"),
        ("acuracy", 0.9, "unknown metric 'acuracy' in constraints; did you mean 'accuracy'?"),
    ],
)
def test_a_bound_that_says_nothing_of_use_is_refused(metric, text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_bound(metric, text)


def test_a_score_is_bounded_on_its_bad_side_only():
    with pytest.raises(SpecError, match="lower is better for the score of this task; write 'at most 2'"):
        parse_bound("score", "at least 2").directed(higher_is_better=False)
    with pytest.raises(SpecError, match="98% of the dense value -3 bounds nothing"):
        parse_bound("score", "98%").limit(-3.0)


def test_every_metric_can_be_bounded_and_is_named_with_its_unit():
    for metric in METRICS.values():
        assert parse_bound(metric.name, 1).metric == metric.name
        assert metric.unit != "ms" or metric.name.endswith("_ms")
        assert metric.unit != "mJ" or metric.name.endswith("_mj")


def test_the_space_stands_inside_and_files_are_found_beside_the_study(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "schema: autoprune/space/1\nname: mine\nrules: [{granularity: 2:4, criterion: random, sparsity: [0.5]}]\n"
    )
    (tmp_path / "tasks.py").write_text("")
    spec = load_study(write(tmp_path, space="mine.yaml"))
    assert spec.space.rules[0].granularity == ("2:4",)
    assert spec.task == f"{tmp_path / 'tasks.py'}:task"


@pytest.mark.parametrize(
    ("key", "value", "error", "sentence"),
    [
        (
            "device",
            "local-cpo",
            UnknownNameError,
            "key 'device': unknown device 'local-cpo'; did you mean 'local-cpu'?",
        ),
        ("space", "chanels", UnknownNameError, "key 'space': unknown space 'chanels'; did you mean 'channels'?"),
        ("space", "nope.yaml", SpecError, "key 'space': space file 'nope.yaml' does not exist"),
        ("device", "nope.yaml", SpecError, "key 'device': device file 'nope.yaml' does not exist"),
    ],
)
def test_a_name_that_does_not_exist_is_told_with_its_file_and_key(tmp_path, key, value, error, sentence):
    path = write(tmp_path, **{key: value})
    with pytest.raises(error) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
    assert sentence in str(caught.value)


def test_how_long_it_is_searched_makes_no_other_study(tmp_path):
    base = load_study(write(tmp_path)).identity()
    assert load_study(write(tmp_path, search="{trials: 7, timeout: 1h, budget: 2h, patience: 9}")).identity() == base
    for changes in (
        {"search": "{seed: 1}"},
        {"search": "{sampler: random}"},
        {"objectives": "[macs]"},
        {"space": "weights"},
    ):
        assert load_study(write(tmp_path, **changes)).identity() != base


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), (" 3 s ", 3)])
def test_times(tmp_path, text, seconds):
    assert load_study(write(tmp_path, search=f"{{timeout: {text}}}")).search.timeout_s == seconds


def test_a_study_built_in_python_may_name_its_space():
    spec = resolve_study(StudySpec(task="package:task", space="channels"))
    assert spec.space.name == "channels"
    with pytest.raises(UnknownNameError, match="channels"):
        resolve_study(StudySpec(task="package:task", space="chanels"))


def test_a_study_may_choose_precisions_and_further_devices(tmp_path):
    plain = load_study(write(tmp_path))
    assert plain.space.precision == ("fp32",)
    assert not {"devices", "precision"} & set(plain.to_data())
    assert "precision" not in plain.to_data()["space"], "an older study stays the same study"
    spec = load_study(write(tmp_path, precision="[fp32, int8]", devices="[nvidia-h200, raspberry-pi-4]"))
    assert spec.space.precision == ("fp32", "int8")
    assert spec.devices == ("nvidia-h200", "raspberry-pi-4")
    assert spec.identity() != plain.identity()
    again = tmp_path / "again.yaml"
    again.write_text(spec.to_yaml(), encoding="utf-8")
    assert load_study(again) == spec, "what stands in the run directory is resolved"
    assert load_study(write(tmp_path, precision="int8")).space.precision == ("int8",)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("devices", "[nvidia-h20]", "key 'devices': unknown device 'nvidia-h20'; did you mean 'nvidia-h200'?"),
        ("devices", "[nope.yaml]", "key 'devices': device file 'nope.yaml' does not exist"),
        ("devices", "[local-cpu]", "names 'local-cpu', which is the device itself; take it out"),
        ("devices", "[l4, l4]", "a device stands twice; name each once"),
        ("precision", "[fp32, fp32]", "a precision stands twice; name each once"),
        ("precision", "[int4]", "input should be 'fp32' or 'int8'"),
    ],
)
def test_a_precision_or_device_that_does_not_fit_is_one_sentence(tmp_path, key, value, sentence):
    with pytest.raises((SpecError, UnknownNameError)) as caught:
        load_study(write(tmp_path, **{key: value}))
    assert sentence in str(caught.value)


def test_further_devices_may_be_measured_on_targets_of_a_cluster(tmp_path):
    (tmp_path / "mine.yaml").write_text(library.find("device", "hw_models", "l4").read_text())
    targets = "{mine.yaml: lab, raspberry-pi-4: {target: pi, runtime: onnxruntime, threads: 4}}"
    written = write(tmp_path, devices="[raspberry-pi-4, mine.yaml]", executor=f"{{ray: {{targets: {targets}}}}}")
    spec = load_study(written)
    further = ray_options(spec.executor).further
    assert set(further) == set(spec.devices), "targets follow their device to where its file lies"
    assert further["raspberry-pi-4"] == TargetSpec(target="pi", runtime="onnxruntime", threads=4)
    assert further[str(tmp_path / "mine.yaml")] == TargetSpec(target="lab")
    again = tmp_path / "again.yaml"
    again.write_text(spec.to_yaml(), encoding="utf-8")
    assert load_study(again) == spec
    with pytest.raises(SpecError, match=r"targets names 'l4', which is not among devices \(raspberry-pi-4\); name it"):
        load_study(write(tmp_path, devices="[raspberry-pi-4]", executor="{ray: {targets: {l4: lab}}}"))
