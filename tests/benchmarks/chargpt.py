"""A character GPT on Shakespeare as a task: 3 blocks of 128 channels, scored by the share of next characters it tells.

AUTOPRUNE_DATA is the folder of data and weights, its nets/ is on PYTHONPATH. The last tenth of the text was never
trained on: its first half validates, its second half is the test.
"""

import os
from functools import partial
from pathlib import Path

import torch
from nets_charlm import CharGPT
from torch.nn.functional import cross_entropy

from autoprune import Task

DATA = Path(os.environ["AUTOPRUNE_DATA"])
TIME = 128


def accuracy(ids, model):
    return float(model(ids[:, :-1]).argmax(2).eq(ids[:, 1:]).float().mean())


def windows(ids, count):
    """Return ``count`` windows, evenly spread, shape (count, TIME + 1)."""
    starts = torch.linspace(0, len(ids) - TIME - 1, count).long()
    return torch.stack([ids[start : start + TIME + 1] for start in starts.tolist()])


def task():
    text = (DATA / "tinyshakespeare.txt").read_text()
    number = {character: n for n, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[character] for character in text])
    train, held_out = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    half = len(held_out) // 2
    model = CharGPT(len(number)).eval()
    model.load_state_dict(torch.load(DATA / "weights/charlm_tinyshakespeare_gpt.pt", weights_only=True))
    batches = [(part[:, :-1], part[:, 1:]) for part in windows(train, 64).split(16)]
    loss = lambda model, batch: cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())  # noqa: E731
    validate, test = (partial(accuracy, windows(part, 100)) for part in (held_out[:half], held_out[half:]))
    return Task(model, batches[0][0][:1], validate, True, test, batches, loss)
