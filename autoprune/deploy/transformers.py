"""Transformers: the sparsifier as a ``TrainerCallback`` (extra ``transformers``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from autoprune.deploy.sparsifier import Sparsifier
from autoprune.errors import ConfigError, UsageError
from autoprune.spec.config import PruningConfig

STATE_FILE = "sparsifier.pt"
"""In every checkpoint folder of the trainer."""


class TransformersSparsifier(TrainerCallback):
    """Prunes what a ``transformers.Trainer`` trains.

    The state is written into every checkpoint folder as ``sparsifier.pt``, and a resumed run goes on in the middle of
    the schedule. After the training ``callback.sparsifier.finalize()`` gives the smaller network.

    Args:
        config: A chosen config, for the model that the trainer is given.
        options: The other arguments of :class:`autoprune.Sparsifier`: ``schedule``, ``method``, ``example_inputs``,
            ``batches``, ``loss``.

    Attributes:
        sparsifier: From the start of the training on.
    """

    def __init__(self, config: PruningConfig, **options: Any) -> None:
        if options.get("remove", "end") != "end":
            raise UsageError("a trainer restores full-sized checkpoints, so remove is 'end' here; leave it out")
        self.config = config
        self.options = options
        self.sparsifier: Sparsifier | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Build the sparsifier, or go on from the checkpoint that the trainer has just restored.

        Raises:
            ConfigError: The checkpoint has no state of a sparsifier.
        """
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if not state.global_step:
            self.sparsifier = Sparsifier(model, self.config, optimizer, **self.options)
            return
        path = self._folder(args, state) / STATE_FILE
        if not path.is_file():
            raise ConfigError(f"the training resumes, and {path} is missing; resume from a checkpoint that was pruned")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.sparsifier = Sparsifier.resume(saved, model, self.config, optimizer, **self.options)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Follow the optimizer."""
        assert self.sparsifier is not None
        self.sparsifier.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the state beside the trainer's own."""
        if self.sparsifier is not None and state.is_world_process_zero:
            folder = self._folder(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / (STATE_FILE + ".part")
            torch.save(self.sparsifier.state_dict(), part)
            part.replace(folder / STATE_FILE)

    def _folder(self, args: TrainingArguments, state: TrainerState) -> Path:
        assert args.output_dir is not None
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"
