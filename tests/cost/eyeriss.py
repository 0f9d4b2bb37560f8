"""What was measured on Eyeriss (Chen et al., JSSC 2017), and energy models fitted to all layers but one.

The totals of AlexNet at batch 4 stand in the paper (34.7 frames/s, 278 mW, 83.1 GMACS/W); the values of single layers
are recalled and reproduce them. Chip power, without the DRAM's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# layer, power mW, total time ms, GMAC of 4 images, share of zeros in the input, DRAM MB
MEASURED = (
    ("CONV1", 332.0, 20.9, 0.42, 0.0001, 5.0),
    ("CONV2", 288.0, 41.9, 0.90, 0.387, 4.0),
    ("CONV3", 266.0, 23.6, 0.60, 0.725, 3.0),
    ("CONV4", 235.0, 18.4, 0.45, 0.793, 2.1),
    ("CONV5", 236.0, 10.5, 0.30, 0.776, 1.3),
)

TABLE = np.array([row[1:] for row in MEASURED])
ENERGY_MJ = TABLE[:, 0] * TABLE[:, 1] / 1000
MACS, TIME = TABLE[:, 2], TABLE[:, 1]
EFFECTIVE_MACS = MACS * (1 - TABLE[:, 3])

MODELS: Mapping[str, tuple[NDArray[np.float64], ...]] = {
    "MACs only": (MACS,),
    "effective MACs only": (EFFECTIVE_MACS,),
    "MACs + DRAM bytes": (MACS, TABLE[:, 4]),
    "measured time only": (TIME,),
    "effective MACs + measured time": (EFFECTIVE_MACS, TIME),
}
"""Name to the terms that energy is a sum of, each times a coefficient of at least 0."""


def leave_one_out(terms: tuple[NDArray[np.float64], ...], energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relative error of each layer by coefficients fitted to the others, shape (layers,).

    Relative least squares: the sum of squared relative errors is least. A negative coefficient is set to 0 and the
    others are fitted again.
    """
    rows = np.stack(terms, axis=1)
    errors = []
    for left_out in range(len(energy)):
        others = np.delete(np.arange(len(energy)), left_out)
        coefficients = _fit(rows[others] / energy[others, None])
        errors.append(rows[left_out] @ coefficients / energy[left_out] - 1)
    return np.array(errors)


def _fit(relative: NDArray[np.float64]) -> NDArray[np.float64]:
    used = list(range(relative.shape[1]))
    while True:
        found = np.linalg.lstsq(relative[:, used], np.ones(len(relative)), rcond=None)[0]
        if (found >= 0).all():
            coefficients = np.zeros(relative.shape[1])
            coefficients[used] = found
            return coefficients
        used.pop(int(found.argmin()))
