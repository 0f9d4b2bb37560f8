"""Small transformers and other sequence networks: plain modules, and tiny random ones of ``transformers``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CharBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.h = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        y = self.ln1(x)
        q, k, v = (m(y).view(batch, time, self.h, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, -1)
        x = x + self.o(y)
        return x + self.fc2(F.gelu(self.fc1(self.ln2(x))))


class CharGPT(nn.Module):
    def __init__(self, vocabulary: int = 11, width: int = 16, heads: int = 4, layers: int = 2, time: int = 12) -> None:
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocabulary, width), nn.Embedding(time, width)
        self.blocks = nn.ModuleList(CharBlock(width, heads) for _ in range(layers))
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok(ids) + self.pos(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x))


class FusedAttention(nn.Module):
    """One matrix for queries, keys and values, as timm writes it; the scale is a stored number."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class ViT(nn.Module):
    """Patches, class token, position embedding, fused attention, layer scale."""

    def __init__(self, width: int = 12, heads: int = 3, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 5, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.attentions = nn.ModuleList(FusedAttention(width, heads) for _ in range(layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(layers)
        )
        self.gamma = nn.Parameter(torch.zeros(width))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        for i, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            x = x + self.gamma * attention(self.norms[2 * i](x))
            x = x + mlp(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x)[:, 0])


class EinsumAttention(nn.Module):
    """Attention in einsum, whole heads in a dimension that the code leaves open; no norm, so the trunk may shrink."""

    def __init__(self, width: int = 12, head_dim: int = 4) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.enter = nn.Linear(6, 10)
        self.q, self.k, self.v = (nn.Linear(10, width) for _ in range(3))
        self.o, self.out = nn.Linear(width, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.enter(x))
        q, k, v = (m(x).unflatten(-1, (-1, self.head_dim)) for m in (self.q, self.k, self.v))
        scores = torch.einsum("bthd,bshd->bhts", q, k).div(2.0).softmax(-1)
        y = torch.einsum("bhts,bshd->bthd", scores, v).flatten(2)
        return self.out(x + self.o(y))


class MergedHeads(nn.Module):
    """Heads merged with the batch for ``bmm``, taken apart again afterwards; ``torch.baddbmm`` for the scores."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        q, k, v = (
            m(x).view(batch, time, self.heads, -1).transpose(1, 2).reshape(batch * self.heads, time, -1)
            for m in (self.q, self.k, self.v)
        )
        scores = torch.baddbmm(q.new_zeros(1, time, time), q, k.transpose(1, 2), beta=0, alpha=self.scale)
        y = torch.bmm(scores.softmax(-1), v).view(batch, self.heads, time, -1)
        return self.o(y.transpose(1, 2).flatten(2))


class NanoGPTAttention(nn.Module):
    """Sizes written from the trunk's width, so that no head can go: to be pinned."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.n_head, self.n_embd = heads, width
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        q, k, v = (m.view(batch, time, self.n_head, width // self.n_head).transpose(1, 2) for m in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(batch, time, width))
        return x + self.mlp(x)


class NanoGPTSeparate(NanoGPTAttention):
    """The same with three matrices: views by numbers that only the proof can judge."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__(width, heads)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            m(x).view(batch, time, self.n_head, width // self.n_head).transpose(1, 2) for m in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(batch, time, width))
        return x + self.mlp(x)


class RotaryAttention(nn.Module):
    """Half-rotated positions, grouped queries, RMS norm: Llama's attention by hand, head width open in the code."""

    def __init__(self, width: int = 16, heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = heads, kv_heads
        head_dim = width // heads
        self.norm = nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, kv_heads * head_dim, bias=False) for _ in range(2))
        self.gate, self.up = nn.Linear(width, 20, bias=False), nn.Linear(width, 20, bias=False)
        self.down = nn.Linear(20, width, bias=False)
        self.register_buffer("frequencies", 10.0 ** -torch.arange(0, head_dim, 2).div(head_dim))

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[-2], dtype=x.dtype), self.frequencies.to(x.dtype))
        angles = torch.cat([angles, angles], dim=-1)
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        y = self.norm(x)
        q = self.rotate(self.q(y).view(batch, time, self.num_heads, -1).transpose(1, 2))
        k = self.rotate(self.k(y).view(batch, time, self.num_kv_heads, -1).transpose(1, 2))
        v = self.v(y).view(batch, time, self.num_kv_heads, -1).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 7), nn.GELU(), nn.Linear(7, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 14), nn.GELU(), nn.Linear(14, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class MLPMixer(nn.Module):
    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(4, width), MixerBlock(4, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patches(x).flatten(2).transpose(1, 2))).mean(1))


class LSTMClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.hidden, self.out = nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out, _ = self.lstm(self.embed(ids))
        return self.out(F.relu(self.hidden(out[:, -1])))


class EncoderLayers(nn.Module):
    """torch's own encoder layer: its attention computes head widths from ``embed_dim``; the linear layers are free."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x).mean(1))


class TiedAutoencoder(nn.Module):
    """One matrix there and back (transposed), and a product with a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(9, 7)
        self.mix = nn.Parameter(torch.zeros(9, 9))
        self.bias = nn.Parameter(torch.zeros(9))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, F.relu(self.encode(x)) @ self.encode.weight, self.mix.t())


PLAIN: dict[str, tuple[Any, list[tuple[int, ...]] | int]] = {
    "char-gpt": (CharGPT, 11),
    "vit": (ViT, [(2, 3, 8, 8)]),
    "einsum-attention": (EinsumAttention, [(2, 5, 6)]),
    "merged-heads": (MergedHeads, [(2, 5, 12)]),
    "rotary-grouped": (RotaryAttention, [(2, 5, 16)]),
    "mlp-mixer": (MLPMixer, [(2, 3, 8, 8)]),
    "lstm": (LSTMClassifier, 11),
    "encoder-layer": (EncoderLayers, [(2, 5, 12)]),
    "tied-autoencoder": (TiedAutoencoder, [(4, 9)]),
}
"""Name to (class, shapes of its inputs); a number stands for token ids below it, shape (2, 6)."""


def tiny(name: str, attention: str) -> nn.Module:
    """Return a random network of ``transformers`` without a cache; the hub is not asked.

    Args:
        name: "bert", "gpt2" or "llama".
        attention: "sdpa" or "eager".
    """
    import transformers as hf

    small: dict[str, Any] = {"vocab_size": 19, "use_cache": False, "attn_implementation": attention}
    if name == "bert":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
        return hf.BertForSequenceClassification(hf.BertConfig(**small, **sizes, max_position_embeddings=16))
    if name == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(**small, n_embd=16, n_layer=2, n_head=4, n_positions=16))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "max_position_embeddings": 16}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**small, **sizes, num_attention_heads=4, num_key_value_heads=2))
