"""Every test sees one thread and the same numbers, whichever worker runs it and whatever ran before.

One thread a worker: spinning OpenMP threads of several workers on few cores stop one another. Property tests draw the
same examples each time, so that a check of a commit judges that commit; others: ``pytest --hypothesis-profile=new``.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("same", derandomize=True)
settings.register_profile("new", derandomize=False)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
