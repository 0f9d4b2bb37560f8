"""A config through Lightning: ``python -m autoprune.examples.with_lightning`` (``autoprune[examples,lightning]``)."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import autoprune as ap
from autoprune.examples.digits import DigitsNet, accuracy, cross_entropy, digits
from autoprune.examples.plain_loop import half_of_the_channels


class Digits(lightning.LightningModule):
    """The digits network as a Lightning module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = DigitsNet(width)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Return the loss of a batch of images and labels."""
        return cross_entropy(self.net, (batch[0], batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer that the sparsifier follows."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def main(directory: Path, epochs: int = 7, width: int = 12) -> float:
    """Train and prune under Lightning; return the accuracy of the smaller network on validation data."""
    lightning.seed_everything(0, verbose=False)
    training, validation, _ = digits()
    module = Digits(width)
    inputs = validation[0][:1]
    config = half_of_the_channels(module.net, inputs)  # yours: ap.load_config("config.yaml")
    loader = DataLoader(TensorDataset(*training), batch_size=64, shuffle=True)
    steps = epochs * len(loader)
    schedule = ap.CubicSchedule(begin=steps // 10, end=steps * 3 // 4, every=steps // 20)
    callback = ap.LightningSparsifier(config, network="net", schedule=schedule, example_inputs=inputs)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
    )
    trainer.fit(module, loader)
    assert callback.sparsifier is not None
    smaller = callback.sparsifier.finalize()
    ap.save_pruned(smaller, directory / "pruned.safetensors", config)
    return accuracy(validation, ap.load_pruned(DigitsNet(width), directory / "pruned.safetensors"))


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        print(f"accuracy {main(Path(scratch)):.4f}")  # noqa: T201
