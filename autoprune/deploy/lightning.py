"""Lightning: the sparsifier as a callback (extra ``lightning``)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from autoprune.deploy.sparsifier import Sparsifier
from autoprune.errors import UsageError
from autoprune.spec.config import PruningConfig


class LightningSparsifier(Callback):
    """Prunes what a ``lightning.Trainer`` trains.

    The state goes into the trainer's checkpoints, and a resumed run goes on in the middle of the schedule. After the
    training ``callback.sparsifier.finalize()`` gives the smaller network.

    Args:
        config: A chosen config.
        network: Name of the attribute of the LightningModule that the config is for; empty for the whole module.
        options: The other arguments of :class:`autoprune.Sparsifier`: ``schedule``, ``method``, ``example_inputs``,
            ``batches``, ``loss``.

    Attributes:
        sparsifier: From the start of the training on.
    """

    def __init__(self, config: PruningConfig, network: str = "", **options: Any) -> None:
        if options.get("remove", "end") != "end":
            raise UsageError("a trainer restores full-sized checkpoints, so remove is 'end' here; leave it out")
        self.config = config
        self.network = network
        self.options = options
        self.sparsifier: Sparsifier | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the sparsifier, or go on with the state of a checkpoint: weights and optimizer are restored by now."""
        if len(trainer.optimizers) != 1:
            raise UsageError(f"the training has {len(trainer.optimizers)} optimizers; use Sparsifier in your own loop")
        model = pl_module.get_submodule(self.network) if self.network else pl_module
        assert isinstance(model, nn.Module)
        optimizer = trainer.optimizers[0]
        if self._saved is not None:
            self.sparsifier = Sparsifier.resume(self._saved, model, self.config, optimizer, **self.options)
        else:
            self.sparsifier = Sparsifier(model, self.config, optimizer, **self.options)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Follow the optimizer; between accumulated batches there is nothing to follow."""
        if self.sparsifier is not None:
            self.sparsifier.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the sparsifier's state, for the trainer's checkpoint."""
        return self.sparsifier.state_dict() if self.sparsifier is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint until the training starts."""
        self._saved = state_dict or None
