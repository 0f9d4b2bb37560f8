"""Masks that no optimizer undoes, exact removal, plain names, and what is refused before anything changes."""

import copy
import pickle

import pytest
import torch
from small_task import cross_entropy, images, labelled, small_net
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import autoprune as ap
from autoprune.errors import ConfigError, SurgeryError, UnknownNameError, UsageError
from autoprune.graph.groups import find_groups
from autoprune.graph.trace import fingerprint
from autoprune.pruning.shrink import smaller_graph
from autoprune.spec.config import ModelIdentity, PruningConfig
from autoprune.spec.record import LayerRecord, TrialRecord

CUBIC = ap.CubicSchedule(begin=0, end=60, every=10)
LAYERS = {
    "stem": {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5},
    "inner": [
        {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5},
        {"granularity": "2:4", "criterion": "magnitude_l1"},
    ],
    "head": {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.5},
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=1e-2, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def config(layers=LAYERS, model=None) -> PruningConfig:
    return PruningConfig(model=ModelIdentity(fingerprint=fingerprint(model or small_net())), layers=layers)


def batches():
    return [labelled(small_net(), 16, seed) for seed in range(4)]


def sparsifier_of(model, optimizer, layers=LAYERS, schedule=CUBIC, **options):
    options = {"example_inputs": images(1, 0)} | options
    return ap.Sparsifier(model, config(layers), optimizer, schedule, **options)


def train(model, optimizer, sparsifier, steps, first=0, average=None):
    model.train()
    data = batches()
    for step in range(first, first + steps):
        optimizer.zero_grad()
        cross_entropy(model, data[step % len(data)]).backward()
        optimizer.step()
        sparsifier.step()
        if average is not None:
            average.update_parameters(model)


def assert_held(sparsifier, model, optimizer=None):
    weights = dict(model.named_parameters())
    assert sparsifier.masks
    for name, kept in sparsifier.masks.items():
        assert not kept.all()
        assert not weights[name][~kept].any(), name
        for value in optimizer.state[weights[name]].values() if optimizer is not None else ():
            if isinstance(value, torch.Tensor) and value.shape == kept.shape:
                assert not value[~kept].any(), name


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_masked_weights_and_moments_are_zero_after_200_steps(kind):
    model = small_net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    sparsifier = sparsifier_of(model, optimizer)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    sparsifier.follow(average.module)
    before = model.inner.weight.detach().clone()
    train(model, optimizer, sparsifier, 200, average=average)
    assert_held(sparsifier, model, optimizer)
    assert_held(sparsifier, average.module)
    assert not torch.equal(model.inner.weight, before), "what is left was trained"
    for layer in sparsifier.report().layers.values():
        assert layer.masked == pytest.approx(0.5)
    for trained in (model, average.module):
        smaller = sparsifier.finalize(None if trained is model else trained)
        assert (smaller.stem.out_channels, smaller.inner.out_channels) == (4, 6)
        trained.eval()
        torch.testing.assert_close(smaller(images(8, 5)), trained(images(8, 5)))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_with_autocast_scaler_and_accumulation_time_is_counted_in_optimizer_steps(kind):
    model = small_net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    sparsifier = sparsifier_of(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    data = batches()
    model.train()
    changes = 0
    for step in range(400):
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(model, data[step % 4]) / 2
        scaler.scale(loss).backward()
        if step % 2:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        changes += sparsifier.step()
    assert sparsifier.steps == 200
    assert changes == 6, "at 10, 20, ... 60; step 0 was before training"
    assert_held(sparsifier, model, optimizer)


def test_a_step_that_the_scaler_skips_does_not_count():
    model = small_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier = sparsifier_of(model, optimizer)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(cross_entropy(model, batches()[0]) * torch.inf).backward()
    scaler.step(optimizer)
    assert not sparsifier.step()
    assert sparsifier.steps == 0


def test_a_closure_is_masked_too():
    """Lightning hands the backward pass to the optimizer."""
    model = small_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier = sparsifier_of(model, optimizer, schedule=ap.OneShotSchedule())

    def closure():
        optimizer.zero_grad()
        loss = cross_entropy(model, batches()[0])
        loss.backward()
        return loss

    for give in (lambda: optimizer.step(closure), lambda: optimizer.step(closure=closure)):
        give()
        assert_held(sparsifier, model, optimizer)


def test_removed_at_once_follows_masked_first():
    """Plain SGD: a channel that is cut and one that is masked train alike, state and all."""
    found = {}
    for remove in ("end", "now"):
        model = small_net()
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        sparsifier = sparsifier_of(model, optimizer, schedule=ap.OneShotSchedule(at=3), remove=remove)
        train(model, optimizer, sparsifier, 10)
        found[remove] = sparsifier.finalize()
        if remove == "now":
            assert model.inner.weight.shape == (6, 4, 3, 3)
            assert optimizer.state[model.inner.weight]["momentum_buffer"].shape == (6, 4, 3, 3)
            assert all(layer.masked == pytest.approx(0.5) for layer in sparsifier.report().layers.values())
    for name, weight in found["end"].state_dict().items():
        torch.testing.assert_close(found["now"].state_dict()[name], weight, msg=name)


def test_cutting_in_rounds_ends_where_the_config_says():
    model = small_net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    sparsifier = sparsifier_of(model, optimizer, schedule=ap.IterativeSchedule(begin=2, end=10, rounds=3), remove="now")
    train(model, optimizer, sparsifier, 12)
    assert (model.stem.out_channels, model.inner.out_channels) == (4, 6)
    assert sparsifier.finalize()(images(2, 0)).shape == (2, 4)


def test_the_graph_of_the_smaller_model_needs_no_trace():
    graph = find_groups(small_net(), (images(1, 0),))
    gone = {name: torch.tensor([1, 2]) for name in graph.groups}
    from autoprune.pruning.plan import cuts_of
    from autoprune.pruning.surgery import cut

    expected = find_groups(cut(small_net(), cuts_of(graph, gone)), (images(1, 0),))
    found = smaller_graph(graph, gone)
    assert found.shapes == expected.shapes
    assert found.layers == expected.layers
    for name, group in expected.groups.items():
        for mine, theirs in zip(found.groups[name].slices, group.slices, strict=True):
            assert (mine.tensor, mine.dim, mine.role) == (theirs.tensor, theirs.dim, theirs.role)
            assert torch.equal(mine.index, theirs.index)


def test_one_shot_before_training_is_apply():
    model = small_net()
    applied = ap.apply(model, config(), images(1, 0))
    sparsifier = sparsifier_of(model, OPTIMIZERS["sgd"](model.parameters()), schedule=ap.OneShotSchedule())
    smaller = sparsifier.finalize()
    for name, value in applied.state_dict().items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, smaller.state_dict()[name]), name


def test_data_driven_criteria_look_at_the_batches():
    layers = {"inner": {"granularity": "weight", "criterion": "taylor", "sparsity": 0.5}}
    model = small_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier = sparsifier_of(model, optimizer, layers, batches=batches(), loss=cross_entropy, example_inputs=None)
    train(model, optimizer, sparsifier, 60)
    assert float(sparsifier.masks["inner.weight"].float().mean()) == pytest.approx(0.5)
    assert model.training, "looking left the model in its mode"


def test_the_model_stays_plain():
    model = small_net()
    names = list(model.state_dict())
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    sparsifier = sparsifier_of(model, optimizer)
    train(model, optimizer, sparsifier, 5)
    assert list(model.state_dict()) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    again = pickle.loads(pickle.dumps(model))
    copied, _ = copy.deepcopy(model), pickle.dumps(optimizer)
    for other in (again, copied, small_net()):
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(other.eval()(images(2, 0)), copied.eval()(images(2, 0)))
    smaller = sparsifier.finalize(early=True)
    assert not any(weight.grad is not None for weight in smaller.parameters())


def test_a_compiled_training_step_gives_the_same():
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        model = small_net()
        trained = torch.compile(model, backend="aot_eager") if compiled else model
        optimizer = OPTIMIZERS["sgd"](trained.parameters())
        sparsifier = sparsifier_of(trained, optimizer)
        train(trained, optimizer, sparsifier, 65)
        found.append(sparsifier.finalize())
    for name, value in found[0].state_dict().items():
        torch.testing.assert_close(found[1].state_dict()[name], value, rtol=1e-4, atol=1e-5)


def other_model():
    return nn.Sequential(nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda m, o: ap.Sparsifier(other_model(), config(), o), ConfigError, "the config is for the architecture"),
        (lambda m, o: ap.Sparsifier(m, config(), o), ConfigError, "give example_inputs="),
        (lambda m, o: sparsifier_of(m, OPTIMIZERS["sgd"]([m.head.weight])), ConfigError, "prunes layer 'stem', whose"),
        (lambda m, o: sparsifier_of(m, object()), UsageError, "the optimizer is object; give a torch.optim.Optimizer"),
        (lambda m, o: sparsifier_of(m, o, schedule="cubic"), UsageError, "schedule is str; give a schedule"),
        (
            lambda m, o: sparsifier_of(m, o, schedule=ap.CubicSchedule),
            UsageError,
            "schedule is the class CubicSchedule",
        ),
        (lambda m, o: ap.Sparsifier(m, "config.yaml", o), UsageError, "config is str; give what autoprune.load_config"),
        (lambda m, o: ap.apply(m, "config.yaml", images(1, 0)), UsageError, "config is str; give what"),
        (lambda m, o: sparsifier_of(m, o, remove="later"), UsageError, "remove is 'later'; give 'end' or 'now'"),
        (lambda m, o: sparsifier_of(m, o, method="gradul"), UnknownNameError, "did you mean 'gradual'"),
        (lambda m, o: sparsifier_of(m, o, method=3), UsageError, "method is int; give a method or its key"),
        (lambda m, o: sparsifier_of(m, o, method="l0", remove="now"), UsageError, "keeps a tensor per weight"),
        (
            lambda m, o: sparsifier_of(
                m, o, {"head": {"granularity": "weight", "criterion": "taylor", "sparsity": 0.5}}
            ),
            ConfigError,
            "layer 'head': criterion 'taylor' needs data; give batches= and loss= or choose another criterion",
        ),
        (
            lambda m, o: sparsifier_of(
                m, o, {"head": {"granularity": "weight", "criterion": "magnitude_l1", "threshold": {"std": 1.0}}}
            ),
            ConfigError,
            "pruned by a threshold, which decides once; use OneShotSchedule",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_half_applied(make, error, sentence):
    model = small_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=sentence):
        make(model, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not optimizer._optimizer_step_pre_hooks


def test_what_cannot_be_finalized_or_followed_is_told():
    model = small_net()
    sparsifier = sparsifier_of(model, OPTIMIZERS["sgd"](model.parameters()))
    with pytest.raises(UsageError, match="the schedule ends at step 60 and 0 were taken; train on"):
        sparsifier.finalize()
    with pytest.raises(UsageError, match="does not follow the masks; call follow"):
        sparsifier.finalize(small_net(), early=True)
    with pytest.raises(UsageError, match=r"give the copy itself, averaged.module"):
        sparsifier.follow(AveragedModel(model))
    sparsifier.close()
    assert not sparsifier.training.optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("remove", ["end", "now"])
def test_finalize_compares_what_it_made_with_config_and_record(remove):
    model = small_net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier = sparsifier_of(model, optimizer, remove=remove)
    train(model, optimizer, sparsifier, 30)
    sparsifier.finalize(early=True)
    assert any("are asked" in each or "is asked" in each for each in sparsifier.achieved.differences), "not there yet"
    train(model, optimizer, sparsifier, 35)
    sparsifier.finalize()
    assert str(sparsifier.achieved) == "as asked"
    assert sparsifier.achieved.unchecked == ()
    layer = LayerRecord(channels=5, dense_channels=8, weight_sparsity=0.0, macs=1)
    record = TrialRecord(number=1, state="complete", origin="x", config=sparsifier.config, layers={"stem": layer})
    with pytest.raises(SurgeryError, match=r"stem has \d channels where the record has 5"):
        sparsifier.finalize(record=record)


def test_a_config_of_another_network_tells_what_differs_layer_by_layer():
    shapes = {name: tuple(layer.shape) for name, layer in find_groups(small_net(), (images(2, 0),)).layers.items()}
    known = config().model_copy(update={"shapes": shapes})
    assert known.signature == config().signature
    wider = small_net(16)
    optimizer = OPTIMIZERS["sgd"](wider.parameters())
    with pytest.raises(ConfigError) as caught:
        ap.Sparsifier(wider, known, optimizer, CUBIC, example_inputs=images(1, 0))
    assert "'stem' is 16x4x3x3 and was 8x4x3x3, 'inner' is 12x16x3x3 and was 12x8x3x3" in str(caught.value)
    with pytest.raises(ConfigError, match=r"'stem' is missing.*'0' is new; use the model that the study searched"):
        ap.Sparsifier(other_model(), known, optimizer)
