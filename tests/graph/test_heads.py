"""Attention: whole heads go with everything that belongs to them, or stay for a reason."""

from __future__ import annotations

import warnings

import architectures
import pytest
import sequence_models
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import ConfigError
from autoprune.graph.groups import Group, ModelGraph, find_groups
from autoprune.pruning.plan import check_config, cuts_of
from autoprune.pruning.proof import proven_groups, surgery_error
from autoprune.pruning.surgery import cut, head_sizes, rebuild
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig


def double(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return architectures.randomised(model).double().eval()


def heads(graph: ModelGraph) -> dict[str, Group]:
    return {name: group for name, group in graph.groups.items() if group.kind == "head"}


def test_a_head_takes_queries_keys_values_and_the_output_with_it() -> None:
    model, ids = double(sequence_models.CharGPT()), torch.randint(0, 11, (2, 6))
    graph = find_groups(model, (ids,))
    group = graph.groups["blocks.0.q"]
    assert (group.kind, group.units) == ("head", 4)
    assert group.layers == ("blocks.0.q", "blocks.0.k", "blocks.0.v")
    assert {(s.tensor, s.dim, s.role) for s in group.slices} == {
        *((f"blocks.0.{name}.weight", 0, "out") for name in "qkv"),
        *((f"blocks.0.{name}.bias", 0, "along") for name in "qkv"),
        ("blocks.0.o.weight", 1, "in"),
    }
    index = next(s.index for s in group.slices if s.tensor == "blocks.0.v.weight")
    assert index.tolist() == [[4 * head + i for i in range(4)] for head in range(4)]


def test_the_head_count_of_the_module_follows() -> None:
    model, ids = double(sequence_models.CharGPT()), torch.randint(0, 11, (2, 6))
    graph = find_groups(model, (ids,))
    gone = {"blocks.0.q": torch.tensor([1]), "blocks.1.q": torch.tensor([0, 2, 3])}
    smaller = cut(model, cuts_of(graph, gone))
    assert [block.h for block in smaller.blocks] == [3, 1]
    assert [block.h for block in model.blocks] == [4, 4]
    assert smaller.blocks[1].o.in_features == 4
    assert surgery_error(model, graph, gone, (ids,)) < 1e-9


def test_heads_and_their_value_channels_go_together() -> None:
    model, ids = double(sequence_models.CharGPT()), torch.randint(0, 11, (2, 6))
    graph = find_groups(model, (ids,))
    assert graph.groups["blocks.0.v"].kind == "channel"
    gone = {"blocks.0.q": torch.tensor([1]), "blocks.0.v": torch.tensor([0, 3])}
    smaller = cut(model, cuts_of(graph, gone))
    assert tuple(smaller.blocks[0].q.weight.shape) == (12, 16)
    assert tuple(smaller.blocks[0].v.weight.shape) == (6, 16)
    assert surgery_error(model, graph, gone, (ids,)) < 1e-9


def test_the_width_of_query_and_key_stays_where_the_scale_follows_it() -> None:
    model, ids = double(sequence_models.CharGPT()), torch.randint(0, 11, (2, 6))
    graph = find_groups(model, (ids,))
    assert not [g for g in graph.groups.values() if g.kind == "channel" and "blocks.0.q" in g.layers]


class ScaledAttention(nn.Module):
    """A scale that is a number of the module, or one that the code computes from the width of what it sees."""

    def __init__(self, *, stored: bool) -> None:
        super().__init__()
        self.heads, self.stored, self.scale = 2, stored, 4**-0.5
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) * (self.scale if self.stored else q.shape[-1] ** -0.5)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_the_proof_tells_a_stored_scale_from_one_that_follows_the_width() -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    stored, _ = proven_groups(double(ScaledAttention(stored=True)), (x,))
    assert {name: group.kind for name, group in stored.groups.items()} == {
        "q": "head",
        "q#2": "channel",
        "v": "channel",
    }
    follows, proof = proven_groups(double(ScaledAttention(stored=False)), (x,))
    assert set(follows.groups) == {"q", "v"}
    assert "scale may follow" in proof.refused["q#2"]


def test_grouped_queries_go_with_the_key_that_they_share() -> None:
    model = double(sequence_models.RotaryAttention())
    graph = find_groups(model, (torch.randn(2, 5, 16, dtype=torch.float64),))
    group = graph.groups["q"]
    assert (group.kind, group.units) == ("head", 2)
    index = {s.tensor: s.index for s in group.slices}
    assert tuple(index["q.weight"].shape) == (2, 8)
    assert tuple(index["k.weight"].shape) == tuple(index["v.weight"].shape) == (2, 4)
    smaller = cut(model, cuts_of(graph, {"q": torch.tensor([0])}))
    assert (smaller.num_heads, smaller.num_kv_heads) == (2, 1)


def test_as_many_heads_as_parts_are_not_mixed_up() -> None:
    model = double(sequence_models.ViT(heads=3))
    graph, proof = proven_groups(model, (torch.randn(2, 3, 8, 8, dtype=torch.float64),))
    assert {name: group.units for name, group in heads(graph).items()} == {
        "attentions.0.qkv": 3,
        "attentions.1.qkv": 3,
    }
    assert not proof.refused


@pytest.mark.parametrize(
    ("make", "refused"), [(sequence_models.NanoGPTAttention, False), (sequence_models.NanoGPTSeparate, True)]
)
def test_sizes_from_the_width_of_the_trunk_keep_the_heads(make: type[nn.Module], refused: bool) -> None:
    graph, proof = proven_groups(double(make()), (torch.randn(2, 5, 12, dtype=torch.float64),))
    assert set(graph.groups) == {"mlp.0"}
    assert bool(proof.refused) is refused
    assert proof.relative_error < 1e-9
    layer = "q" if refused else "c_attn"
    assert any(pinned.layer == layer for pinned in graph.pinned)


def test_pruned_heads_survive_saving_by_shape_and_count() -> None:
    model, ids = double(sequence_models.CharGPT()), torch.randint(0, 11, (2, 6))
    graph = find_groups(model, (ids,))
    smaller = cut(model, cuts_of(graph, {"blocks.0.q": torch.tensor([1, 2])}))
    rebuilt = rebuild(sequence_models.CharGPT().double(), smaller.state_dict(), head_sizes(smaller)).eval()
    assert torch.equal(rebuilt(ids), smaller(ids))


def test_a_config_must_name_the_kind_of_the_group() -> None:
    graph = find_groups(sequence_models.CharGPT(), (torch.randint(0, 11, (2, 6)),))
    choice = LayerChoice(granularity="channel", criterion="magnitude_l1", sparsity=0.5)
    identity = ModelIdentity(fingerprint=graph.fingerprint)
    config = PruningConfig(model=identity, layers={"blocks.0.q": (choice,)})
    with pytest.raises(ConfigError, match=r"'blocks.0.q' is made of heads.*use granularity 'head'"):
        check_config(config, graph)
    check_config(
        PruningConfig(model=identity, layers={"blocks.0.q": (choice.model_copy(update={"granularity": "head"}),)}),
        graph,
    )


def test_head_of_one_query_among_shared_keys_may_go() -> None:
    """Multi-query attention: one key and value for all; queries go one by one, the shared channels stay."""

    class MultiQuery(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_heads = 3
            self.q, self.kv, self.o = nn.Linear(12, 12), nn.Linear(12, 8), nn.Linear(12, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.q(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            k, v = self.kv(x)[:, None].chunk(2, dim=-1)
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    model, x = double(MultiQuery()), torch.randn(2, 5, 12, dtype=torch.float64)
    graph, proof = proven_groups(model, (x,))
    assert heads(graph)["q"].units == 3
    assert proof.relative_error < 1e-9


def test_an_output_that_is_no_tensor_does_not_stop_the_export() -> None:
    """Language models of ``transformers`` return their cache of keys beside the logits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a third party's import says is not ours to mend
        pytest.importorskip("transformers")
    model, ids = double(sequence_models.tiny("llama", "sdpa")), torch.randint(0, 19, (2, 6))
    model.config.use_cache = True
    graph, proof = proven_groups(model, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert not graph.untraced
    assert len(heads(graph)) == 2
    assert proof.relative_error < 1e-9
