"""Every method on real digits reaches the config's sparsity and beats random masks; formulas against their source."""

import copy
import math
from functools import cache
from statistics import mean

import pytest
import torch
from digits import accuracy, config, digits, net, train

import autoprune as ap
from autoprune.errors import ConfigError, UsageError
from autoprune.testing import check_method
from autoprune.training.methods import (
    L0,
    L1,
    METHODS,
    SET,
    GroupLasso,
    LotteryTicket,
    NetworkSlimming,
    RigL,
    VariationalDropout,
)
from autoprune.training.methods.l0 import gates, open_probability
from autoprune.training.methods.proximal import shrink_factors, soft_threshold
from autoprune.training.methods.variational import divergence

WEIGHTS = {"0": ("weight", 0.95), "2": ("weight", 0.95)}
CHANNELS = {"0": ("channel", 0.5)}
CUBIC = ap.CubicSchedule(begin=40, end=300, every=20)
MOVING = ap.ConstantSchedule(begin=0, end=300, every=10)
LAST = ap.OneShotSchedule(at=400)
ROUNDS = ap.IterativeSchedule(begin=200, end=800, rounds=4)


def trained(layers, schedule, method, criterion="magnitude_l1", seed=0, **options):
    model = net(seed, norm="0" in layers and layers["0"][0] == "channel")
    sparsifier = train(model, config(model, layers, criterion, seed), schedule, method, seed=seed, **options)
    for layer in sparsifier.report().layers.values():
        assert layer.masked == pytest.approx(layer.wanted, abs=0.001), "the sparsity of the config, to the unit"
    return accuracy(sparsifier.finalize())


@cache
def random_masks(kind, schedule):
    layers = CHANNELS if kind == "channels" else WEIGHTS
    return mean(trained(layers, schedule, "gradual", "random", seed) for seed in (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind", "schedule", "options"),
    [
        ("gradual", "weights", CUBIC, {}),
        ("l1", "weights", CUBIC, {}),
        ("group_lasso", "weights", CUBIC, {}),
        ("movement", "weights", CUBIC, {}),
        ("l0", "weights", CUBIC, {}),
        ("variational", "weights", CUBIC, {}),
        ("rigl", "weights", MOVING, {}),
        ("set", "weights", MOVING, {}),
        ("lottery", "weights", ROUNDS, {"steps": 1000, "decay": False}),
        (NetworkSlimming(strength=0.003), "channels", LAST, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_method_reaches_its_sparsity_and_beats_random_masks(method, kind, schedule, options):
    layers = CHANNELS if kind == "channels" else WEIGHTS
    found = mean(trained(layers, schedule, method, seed=seed, **options) for seed in (0, 1))
    baseline = random_masks(kind, CUBIC if method == "lottery" else schedule)
    assert found > baseline + 0.03, f"{method!r}: {found:.3f} against {baseline:.3f}"


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_passes_the_suite_of_plugins(name):
    shape = "channel" if name == "slimming" else "weight"
    check_method(METHODS.get(name), {"0": {"granularity": shape, "criterion": "magnitude_l1", "sparsity": 0.5}})


def test_every_registered_method_is_tried():
    marks = test_a_method_reaches_its_sparsity_and_beats_random_masks.pytestmark
    tried = {
        case[0] if isinstance(case[0], str) else case[0].key
        for mark in marks
        if mark.name == "parametrize"
        for case in mark.args[1]
    }
    assert tried == set(METHODS.names())
    assert all(METHODS.get(name).summary and METHODS.get(name).key == name for name in tried)


@pytest.mark.parametrize(
    ("method", "layers", "grown"),
    [
        (L1(strength=0.02), {"0": ("weight", 0.5)}, "0 weight"),
        (GroupLasso(strength=0.02), {"0": ("row", 0.5)}, "0 row"),
        (GroupLasso(strength=0.02), {"0": ("channel", 0.5)}, "0 channel"),
    ],
    ids=["l1", "rows", "channels"],
)
def test_sparsity_grows_by_itself_and_is_reported(method, layers, grown):
    model = net(0)
    sparsifier = train(model, config(model, layers), ap.OneShotSchedule(at=100_000), method, steps=150)
    layer = sparsifier.report().layers[grown]
    assert layer.masked == 0
    assert layer.zero > 0.2
    weight = model[0].weight
    rows = (weight == 0).all(1).double().mean() if grown != "0 weight" else (weight == 0).double().mean()
    assert layer.zero == pytest.approx(float(rows))


def test_proximal_steps_solve_what_they_say():
    """Brute force over a grid: the operator is the minimiser of its objective."""
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    for start in (-1.7, -0.2, 0.4, 2.0):
        best = grid[(0.5 * (grid - start) ** 2 + 0.5 * grid.abs()).argmin()]
        found = torch.tensor([start], dtype=torch.float64)
        soft_threshold(found, 0.5)
        assert float(found) == pytest.approx(float(best), abs=1e-4)
        factor = shrink_factors(torch.tensor([abs(start)], dtype=torch.float64), torch.tensor([0.5]))
        assert float(factor) * start == pytest.approx(float(best), abs=1e-4)


def test_hard_concrete_gates_open_as_often_as_their_formula_says():
    log_alpha = torch.tensor([-2.0, 0.0, 1.5]).repeat(200_000, 1)
    uniform = torch.rand(log_alpha.shape, generator=torch.Generator().manual_seed(0))
    found = (gates(log_alpha, uniform) > 0).double().mean(0)
    torch.testing.assert_close(found, open_probability(log_alpha[0]).double(), atol=3e-3, rtol=0)
    assert float(gates(torch.tensor(0.0), None)) == pytest.approx(0.5)


def test_the_fitted_divergence_is_the_integral():
    """Against Monte Carlo of -D = log sigma - E log |w| + c (Molchanov et al. 2017, equation 14), by differences."""
    noise = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def sampled(log_alpha):
        alpha = torch.tensor(log_alpha, dtype=torch.float64).exp()
        return float(torch.log((1 + alpha.sqrt() * noise).abs()).mean() - 0.5 * alpha.log())

    points = [-3.0, -1.0, 1.0, 3.0]
    formula = [float(divergence(torch.tensor(point))) for point in points]
    exact = [sampled(point) for point in points]
    for i in range(3):
        assert formula[i + 1] - formula[i] == pytest.approx(exact[i + 1] - exact[i], abs=0.03)


def test_rigl_drops_the_smallest_and_grows_the_largest_gradients():
    """One change of masks against a few lines by hand."""
    model = net(0)
    chosen = config(model, {"0": ("weight", 0.9)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = ap.ConstantSchedule(begin=0, end=100, every=1)
    sparsifier = ap.Sparsifier(model, chosen, optimizer, schedule, method=RigL(fraction=0.4))
    weight, before = model[0].weight, sparsifier.masks["0.weight"].clone()
    dense = weight.detach().clone()
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    weight.grad = gradient.clone()
    optimizer.step()
    sparsifier.step()
    after = sparsifier.masks["0.weight"]
    moved = int(0.2 * (1 + math.cos(math.pi / 100)) * int(before.sum()))
    sizes = torch.where(before, dense.abs(), torch.inf).reshape(-1)
    survivors = before.clone().reshape(-1)
    survivors[sizes.argsort()[:moved]] = False
    survivors = survivors.reshape(before.shape)
    grown = torch.where(survivors, -1.0, gradient.abs()).reshape(-1).argsort(descending=True)[:moved]
    by_hand = survivors.reshape(-1).clone()
    by_hand[grown] = True
    assert torch.equal(after.reshape(-1), by_hand)
    assert torch.equal(weight.detach(), dense * (before & after)), "what grows starts from zero"


def test_a_ticket_is_its_early_self():
    model = net(0)
    early = {name: value.clone() for name, value in model.state_dict().items()}
    schedule = ap.IterativeSchedule(begin=20, end=40, rounds=2)
    sparsifier = train(model, config(model, {"0": ("weight", 0.5)}), schedule, LotteryTicket(), steps=40)
    kept = sparsifier.masks["0.weight"]
    assert torch.equal(model[0].weight, early["0.weight"] * kept), "the last step rewound"
    assert torch.equal(model[4].bias, early["4.bias"])
    assert not sparsifier.training.optimizer.state


def test_noise_is_the_same_after_a_look_and_gone_when_settled():
    model = net(0)
    chosen = config(model, {"0": ("weight", 0.5)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plain = model[0].weight.detach().clone()
    sparsifier = ap.Sparsifier(model, chosen, optimizer, CUBIC, method=VariationalDropout())
    noisy = model[0].weight.detach().clone()
    assert not torch.equal(noisy, plain)
    with sparsifier.settled() as settled:
        assert torch.equal(settled[0].weight, plain)
    assert torch.equal(model[0].weight, noisy)


@pytest.mark.parametrize("method", ["l0", "variational"])
def test_a_pass_in_evaluation_mode_sees_no_noise_and_leaves_the_training_as_it_was(method):
    def sparsified():
        model = net(0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, ap.Sparsifier(model, config(model, WEIGHTS), optimizer, CUBIC, method=method)

    def step(model, optimizer, sparsifier, look):
        optimizer.zero_grad()
        model.train()
        model(digits()[0][0][:64]).square().mean().backward()
        if look:
            model.eval()
            model(digits()[1][0])  # between backward and step, too
            model.train()
        optimizer.step()
        sparsifier.step()

    model, optimizer, sparsifier = sparsified()
    x = digits()[1][0]
    noisy = model(x)
    with sparsifier.settled() as settled:
        wanted = settled(x)
    assert not torch.equal(noisy, wanted)
    model.eval()
    assert torch.equal(model(x), wanted)
    copied = copy.deepcopy(model)
    assert not torch.equal(copied(x), wanted), "a copy holds the weights of the moment, and its hooks do nothing"
    model.train()
    assert torch.equal(model(x), noisy), "the same noise is back"
    other = sparsified()
    for _ in range(3):
        step(model, optimizer, sparsifier, look=True)
        step(*other, look=False)
    for mine, theirs in zip(model.parameters(), other[0].parameters(), strict=True):
        assert torch.equal(mine, theirs), "looking changes nothing"
    smaller = sparsifier.finalize(early=True)
    assert not smaller._forward_pre_hooks
    assert not smaller._forward_hooks
    sparsifier.close()
    assert not model._forward_pre_hooks


def test_a_ticket_of_the_first_step_is_that_of_the_first_step():
    model = net(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    chosen = config(model, {"0": ("weight", 0.5)})
    sparsifier = ap.Sparsifier(model, chosen, optimizer, ap.OneShotSchedule(at=3), method=LotteryTicket(rewind_to=1))
    after = []
    for _ in range(3):
        optimizer.zero_grad()
        model(digits()[0][0][:64]).square().mean().backward()
        optimizer.step()
        after.append(model[4].weight.detach().clone())
        sparsifier.report()  # a look at the weights records nothing
        sparsifier.step()
    assert torch.equal(model[4].weight, after[0])


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: L1(strength=0), UsageError, "strength of method 'l1' is above 0, not 0"),
        (lambda: L0(strength=-1), UsageError, "strength of method 'l0' is above 0, not -1"),
        (lambda: SET(fraction=1), UsageError, "fraction of method 'set' is above 0 and below 1, not 1"),
        (lambda: LotteryTicket(rewind_to=-1), UsageError, "rewind_to is a whole number of at least 0, not -1"),
        (lambda: started({"0": ("channel", 0.5)}, "rigl"), ConfigError, "grows weights, and group '0' loses channels"),
        (
            lambda: started({"0": ("weight", 0.5)}, NetworkSlimming()),
            ConfigError,
            "prunes channels, and the config has none",
        ),
        (lambda: started({"0": ("channel", 0.5)}, NetworkSlimming()), ConfigError, "needs a batch norm in group '0'"),
        (lambda: started({"0": ("weight", 0.5)}, LotteryTicket(rewind_to=50)), UsageError, "masks change at step 40"),
    ],
)
def test_what_a_method_cannot_do_is_one_sentence(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def started(layers, method):
    model = net(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    example = torch.zeros(2, 64)
    return ap.Sparsifier(model, config(model, layers), optimizer, CUBIC, method=method, example_inputs=example)
