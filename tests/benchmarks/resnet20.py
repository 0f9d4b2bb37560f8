"""ResNet-20 on CIFAR-10 as a task. AUTOPRUNE_DATA is the folder of data and weights, its nets/ is on PYTHONPATH."""

import os
from functools import partial

import numpy as np
import torch
from nets_resnet_cifar import resnet_cifar
from torch.nn.functional import cross_entropy

from autoprune import Task

DATA = os.environ["AUTOPRUNE_DATA"]
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def accuracy(x, y, model):
    return float(torch.cat([model(part).argmax(1) for part in x.split(250)]).eq(y).float().mean())


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
    data = np.load(f"{DATA}/cifar10_small.npz")
    x, train = ((torch.from_numpy(data[key]).permute(0, 3, 1, 2) / 255 - MEAN) / STD for key in ("x_test", "x_train"))
    y, labels = (torch.from_numpy(data[key]).long() for key in ("y_test", "y_train"))
    model = resnet_cifar(20)
    model.load_state_dict(torch.load(f"{DATA}/weights/cifar10_resnet20.pt", weights_only=True))
    validate, test = partial(accuracy, x[:1000], y[:1000]), partial(accuracy, x[1000:], y[1000:])
    batches = list(zip(train.split(128), labels.split(128), strict=True))
    loss = lambda model, batch: cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    sample = partial(sample_accuracy, x[:1000], y[:1000])
    return Task(model, x[:1], validate, True, test, batches, loss, partial(finetune, batches), sample)
