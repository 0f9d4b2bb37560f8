"""ResNet-20 on CIFAR-10 as a task; the folder of data and weights stands in the variable AUTOPRUNE_DATA."""

import os
import sys
from functools import partial

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from autoprune import Task

DATA = os.environ["AUTOPRUNE_DATA"]
sys.path.insert(0, f"{DATA}/nets")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def accuracy(x, y, model):
    return float(torch.cat([model(part).argmax(1) for part in x.split(250)]).eq(y).float().mean())


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def finetune(batches, model, steps):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss(model, batches[step % len(batches)]).backward()
        optimizer.step()


def task():
    from nets_resnet_cifar import resnet_cifar

    data = {key: torch.from_numpy(value) for key, value in dict(np.load(f"{DATA}/cifar10_small.npz")).items()}
    x, y = (data["x_test"].permute(0, 3, 1, 2) / 255 - MEAN) / STD, data["y_test"].long()
    train = ((data["x_train"].permute(0, 3, 1, 2) / 255 - MEAN) / STD).split(128)
    model, batches = resnet_cifar(20), list(zip(train, data["y_train"].long().split(128), strict=True))
    model.load_state_dict(torch.load(f"{DATA}/weights/cifar10_resnet20.pt", weights_only=True))
    validate, test = partial(accuracy, x[:1000], y[:1000]), partial(accuracy, x[1000:], y[1000:])
    return Task(model, x[:1], validate, True, test, batches, loss, partial(finetune, batches))
