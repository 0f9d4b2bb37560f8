"""One thread a worker: spinning OpenMP threads of several workers on few cores stop one another."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
