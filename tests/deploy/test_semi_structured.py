"""2:4 for sparse tensor cores: what a CPU can show, and the rest where there is a GPU."""

import pytest
import torch
from torch import nn

import autoprune
from autoprune.deploy.semi_structured import is_2_of_4, refusal
from autoprune.errors import UsageError
from autoprune.pruning.granularity import granularity


def pruned_linear(rows=64, columns=128, dtype=torch.float16):
    layer = nn.Linear(columns, rows)
    with torch.no_grad():
        layer.weight.mul_(granularity("2:4").mask(layer.weight.abs(), 0.5))
    return nn.Sequential(layer).to(dtype).eval()


def test_our_2_of_4_is_theirs():
    weight = pruned_linear()[0].weight
    assert is_2_of_4(weight)
    assert not refusal(weight)
    assert not is_2_of_4(torch.ones(4, 8))
    assert not is_2_of_4(torch.zeros(4, 6))
    along_outputs = weight.T.contiguous()
    assert not is_2_of_4(along_outputs)


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (torch.zeros(64, 128), "float32; use float16 or bfloat16"),
        (torch.zeros(48, 128).half(), "48 x 128, and the kernels take multiples of 32 x 64"),
        (torch.zeros(64, 96).half(), "64 x 96"),
    ],
)
def test_what_the_kernels_do_not_take_is_told(weight, reason):
    assert reason in refusal(weight)


def test_without_a_gpu_it_is_one_sentence():
    with pytest.raises(UsageError, match=r"need an NVIDIA GPU of compute capability 8\.0 or later, and "):
        autoprune.to_semi_structured(pruned_linear())
    with pytest.raises(UsageError, match="prune with granularity 2:4 first"):
        autoprune.to_semi_structured(nn.Linear(8, 8))


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="no GPU with sparse tensor cores",
)
def test_on_a_gpu_it_computes_the_same():
    model = pruned_linear().cuda()
    x = torch.randn(64, 128, dtype=torch.float16, device="cuda")
    made = autoprune.to_semi_structured(model)
    assert made.converted == ("0",)
    torch.testing.assert_close(made.model(x), model(x), rtol=1e-2, atol=1e-2)
