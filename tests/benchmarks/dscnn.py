"""MLPerf Tiny's DS-CNN (keyword spotting) as a task.

AUTOPRUNE_DATA is the folder of data and weights, its nets/ is on PYTHONPATH. Only 1,000 evaluation samples are there:
400 calibrate and fine-tune, 300 validate, the last 300 are the test.
"""

import os
from functools import partial

import numpy as np
import torch
from nets_mlperf_tiny import DSCNN
from torch.nn.functional import cross_entropy

from autoprune import Task

DATA = os.environ["AUTOPRUNE_DATA"]


def accuracy(x, y, model):
    return float(model(x).argmax(1).eq(y).float().mean())


def sample_accuracy(x, y, model, samples):
    return accuracy(x[:samples], y[:samples], model)


def finetune(batches, model, steps):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        x, y = batches[step % len(batches)]
        cross_entropy(model(x), y).backward()
        optimizer.step()


def task():
    data = dict(np.load(f"{DATA}/kws_mlperf_tiny.npz"))
    x = (torch.from_numpy(data["x_int8"]).float() - int(data["zero_point"])) * float(data["scale"])
    x, y = x.unsqueeze(1), torch.from_numpy(data["y"]).long()
    model = DSCNN().eval()
    model.load_state_dict(torch.load(f"{DATA}/weights/mlperf_tiny_kws_dscnn.pt", weights_only=True))
    batches = list(zip(x[:400].split(50), y[:400].split(50), strict=True))
    loss = lambda model, batch: cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    validate, test = partial(accuracy, x[400:700], y[400:700]), partial(accuracy, x[700:], y[700:])
    sample = partial(sample_accuracy, x[400:700], y[400:700])
    return Task(model, x[:1], validate, True, test, batches, loss, partial(finetune, batches), sample)
