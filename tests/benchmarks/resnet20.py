"""ResNet-20 on CIFAR-10 as a task. AUTOPRUNE_DATA is the folder of data and weights, its nets/ is on PYTHONPATH."""

import os
from functools import partial

import numpy as np
import torch
from nets_resnet_cifar import resnet_cifar
from torch.nn.functional import cross_entropy

from autoprune import Task

DATA = os.environ["AUTOPRUNE_DATA"]
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
    data = {key: torch.from_numpy(value) for key, value in dict(np.load(f"{DATA}/cifar10_small.npz")).items()}
    x, train = ((data[key].permute(0, 3, 1, 2) / 255 - MEAN) / STD for key in ("x_test", "x_train"))
    y, batches = data["y_test"].long(), list(zip(train.split(128), data["y_train"].long().split(128), strict=True))
    model = resnet_cifar(20)
    model.load_state_dict(torch.load(f"{DATA}/weights/cifar10_resnet20.pt", weights_only=True))
    validate, test = partial(accuracy, x[:1000], y[:1000]), partial(accuracy, x[1000:], y[1000:])
    return Task(model, x[:1], validate, True, test, batches, loss, partial(finetune, batches))
