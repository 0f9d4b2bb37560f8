"""NVML: the energy counter of NVIDIA GPUs since Volta, as the driver's own library gives it."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any, ClassVar

import torch

from autoprune.errors import MeterError, UsageError


class NvmlMeter:
    """The energy counter of the current CUDA device, all of the board, by NVML.

    The counter moves about ten times a second, so windows are long (HBM boards draw 26 to 50 W more once CUDA runs
    on them: arXiv 2605.23918).

    Raises:
        UsageError: The library, the driver or the counter is not there.
    """

    covers: ClassVar[str] = "gpu"
    window_s: ClassVar[float] = 10.0

    def __init__(self) -> None:
        if lacking := self.missing():
            raise UsageError(lacking)
        self._library, self._device = _opened()
        self._board = _text(self._library.nvmlDeviceGetName(self._device))
        self._start_mj = self._read_mj()

    @classmethod
    def missing(cls) -> str:
        """Return what is not there, and what to do."""
        if find_spec("pynvml") is None:
            return "energy meter 'nvml' needs nvidia-ml-py; pip install 'autoprune[nvml]'"
        try:
            library, device = _opened()
            library.nvmlDeviceGetTotalEnergyConsumption(device)
        except Exception as error:  # noqa: BLE001 - NVML has an error class for each reason, made as it loads
            return (
                f"energy meter 'nvml': NVML gives no energy counter here ({error}); it needs an NVIDIA GPU since Volta "
                "and its driver; leave energy to the model elsewhere"
            )
        return ""

    @property
    def name(self) -> str:
        """The board."""
        return f"NVML {self._board}"

    def read_j(self) -> float:
        """Return the joules of the board since this was built.

        Raises:
            MeterError: The driver refuses to tell.
        """
        return (self._read_mj() - self._start_mj) * 1e-3

    def _read_mj(self) -> int:
        try:
            return int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device))
        except self._library.NVMLError as error:
            raise MeterError(
                f"NVML can no longer read the energy of {self._board} ({error}); set latency.energy_meter: none"
            ) from error


def _opened() -> tuple[Any, Any]:
    """Return the library and the device that CUDA is on; NVML counts boards by itself, so they meet by UUID."""
    library = importlib.import_module("pynvml")
    library.nvmlInit()
    if torch.cuda.is_available():
        uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        return library, library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    return library, library.nvmlDeviceGetHandleByIndex(0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
