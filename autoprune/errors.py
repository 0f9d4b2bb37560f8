"""The one error tree.

AutopruneError
├── UsageError              the caller can mend it; the command exits with 2
│   ├── SpecError           a YAML file: names file, key, value found, values allowed
│   ├── UnknownNameError    a name that no registry or folder holds, with "did you mean"
│   ├── TaskError           the task does not import, returns the wrong thing, or scores NaN
│   ├── TraceError          the model cannot be exported, or the example inputs do not fit
│   ├── ConfigError         a pruning config that does not fit this model
│   ├── RunDirectoryError   a run directory that is missing, foreign or unreadable
│   └── ClusterError        a cluster that is missing, or lacks what trials need
└── RunError                the run failed; the command exits with 1
    ├── StorageError        the study's storage cannot be read or written
    ├── TrialError          one trial's own failure; the study loop records it and goes on
    ├── MeterError          a measurement that gave no usable number
    ├── SurgeryError        the smaller model does not compute what the masked one does
    └── ExportError         an exported file does not compute what the model does

Every message gives the rule, the value found and the remedy, in one sentence.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutopruneError(Exception):
    """Root of every error that autoprune raises on purpose."""


class UsageError(AutopruneError):
    """Something the caller gave is wrong; nothing was lost."""


class SpecError(UsageError):
    """A YAML document breaks its schema."""


class UnknownNameError(UsageError):
    """A name is in no registry, folder or model."""


class TaskError(UsageError):
    """The user's task cannot be used."""


class TraceError(UsageError):
    """The model cannot be traced."""


class ConfigError(UsageError):
    """A pruning config does not fit the model it is applied to."""


class RunDirectoryError(UsageError):
    """A run directory cannot serve this command."""


class ClusterError(UsageError):
    """A cluster cannot run the trials of a study."""


class RunError(AutopruneError):
    """The run itself failed."""


class StorageError(RunError):
    """The study's storage cannot be read or written."""


class TrialError(RunError):
    """One trial failed by itself."""


class MeterError(RunError):
    """A measurement gave no usable number."""


class SurgeryError(RunError):
    """The smaller model is not what the masked dense model is."""


class ExportError(RunError):
    """An exported file does not compute what the model computes."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for an unknown name.

    Args:
        kind: What the name stands for, singular ("device").
        name: The name found.
        known: The names that exist.

    Returns:
        An error whose sentence holds the closest name, or all of them.
    """
    names = sorted(known)
    return UnknownNameError(f"unknown {kind} {str(name)!r}{suggestion(name, names)}")


def one_line(error: BaseException, most: int = 300) -> str:
    """Return an error as "Type: text" on one line, cut after ``most`` characters."""
    text = " ".join(str(error).split())
    text = text if len(text) <= most else text[: most - 3] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def suggestion(name: object, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known names, ready to end a sentence."""
    names = list(names)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"{hint} known: {listed or 'none'}"
