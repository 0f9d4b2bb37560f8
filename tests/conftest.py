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


RAY = ("test_ray.py", "test_ray_targets.py")
"""Files whose tests share clusters: one process runs them all, and begins with them."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give xdist's workers test after test, those of :data:`RAY` to one of them.

    xdist 3.8 has ``--dist loadgroup`` for that: it writes the group into ``item._nodeid``, which pytest 9.2 no longer
    reads, and groups nothing.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "ray" if nodeid.partition("::")[0].rpartition("/")[2] in RAY else nodeid

    return Together(config, log) if config.getvalue("dist") == "load" else None
