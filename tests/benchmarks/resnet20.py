"""ResNet-20 on CIFAR-10 as a task; the folder of data and weights stands in the variable AUTOPRUNE_DATA."""

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from autoprune import Task

DATA = Path(os.environ["AUTOPRUNE_DATA"])
sys.path.insert(0, str(DATA / "nets"))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def accuracy(images, labels, model):
    return float(torch.cat([model(part).argmax(1) for part in images.split(250)]).eq(labels).float().mean())


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def task():
    from nets_resnet_cifar import resnet_cifar

    data = dict(np.load(DATA / "cifar10_small.npz"))
    x, y = {}, {}
    for part in ("train", "test"):
        x[part] = (torch.from_numpy(data[f"x_{part}"]).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
        y[part] = torch.from_numpy(data[f"y_{part}"]).long()
    model = resnet_cifar(20)
    model.load_state_dict(torch.load(DATA / "weights" / "cifar10_resnet20.pt", weights_only=True))
    batches = list(zip(x["train"].split(128), y["train"].split(128), strict=True))
    validate, test = (partial(accuracy, x["test"][part], y["test"][part]) for part in (slice(1000), slice(1000, None)))
    return Task(model=model, example_inputs=x["test"][:1], evaluate=validate, test=test, batches=batches, loss=loss)
