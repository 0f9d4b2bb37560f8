"""A config through the Trainer of transformers: ``python -m autoprune.examples.with_transformers``.

A tiny vision transformer with random weights learns the digits while half of its attention heads and of its inner
channels go. Nothing is downloaded. Needs ``autoprune[examples,transformers]`` and accelerate.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

import autoprune as ap
from autoprune.examples.digits import Batch, digits
from autoprune.examples.plain_loop import half_of_the_channels


class Examples(Dataset[dict[str, Tensor]]):
    """Images and labels under the names that the model takes."""

    def __init__(self, data: Batch) -> None:
        self.images, self.labels = data

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def vision_transformer() -> ViTForImageClassification:
    """Return a network for (n, 1, 8, 8) images: 16 patches, two layers, four heads."""
    config = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    config.num_labels = 10
    return ViTForImageClassification(config)


def main(directory: Path, steps: int = 200) -> float:
    """Train and prune under the Trainer; return the accuracy of the smaller network on validation data."""
    set_seed(0)
    training, validation, _ = digits()
    model: nn.Module = vision_transformer()
    inputs = validation[0][:1]
    config = half_of_the_channels(model, inputs)  # yours: ap.load_config("config.yaml")
    schedule = ap.CubicSchedule(begin=steps // 10, end=steps * 3 // 4, every=steps // 20)
    callback = ap.TransformersSparsifier(config, schedule=schedule, example_inputs=inputs)
    arguments = TrainingArguments(
        output_dir=str(directory), max_steps=steps, per_device_train_batch_size=64, learning_rate=3e-3,
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Examples(training), callbacks=[callback]).train()
    assert callback.sparsifier is not None
    smaller = callback.sparsifier.finalize()
    ap.save_pruned(smaller, directory / "pruned.safetensors", config)
    loaded = ap.load_pruned(vision_transformer(), directory / "pruned.safetensors")
    with torch.no_grad():
        answers = loaded(validation[0]).logits.argmax(1)
    return float((answers == validation[1]).float().mean())


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        print(f"accuracy {main(Path(scratch)):.4f}")  # noqa: T201
