"""The sparsifier under the real Lightning, Transformers, Accelerate, DistributedDataParallel and FSDP2."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from data_parallel import blocks_masked
from small_task import SmallNet, cross_entropy, images, labelled, small_net
from torch.utils.data import DataLoader, TensorDataset

import autoprune as ap
from autoprune.errors import ConfigError, UsageError
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig

HERE = Path(__file__).parent
LAYERS = {
    "stem": {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5},
    "inner": {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.6},
}
CUBIC = ap.CubicSchedule(begin=2, end=8, every=2)


def config() -> PruningConfig:
    return PruningConfig(model=ModelIdentity(fingerprint=fingerprint(small_net())), layers=LAYERS)


def plain_loop(steps, rate=0.05):
    """Return what every integration must end with."""
    model = small_net().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    sparsifier = ap.Sparsifier(model, config(), optimizer, CUBIC, example_inputs=images(1, 0))
    for batch in list(loader())[:steps]:
        optimizer.zero_grad()
        cross_entropy(model, batch).backward()
        optimizer.step()
        sparsifier.step()
    return sparsifier


def loader():
    """Return 12 equal batches: a trainer that resumes within an epoch may start its data anew."""
    inputs, labels = labelled(small_net(), 8, 0)
    return DataLoader(TensorDataset(inputs.repeat(12, 1, 1, 1), labels.repeat(12)), batch_size=8)


def assert_same(found, expected):
    assert found.steps == expected.steps
    for name, mask in expected.masks.items():
        assert torch.equal(found.masks[name], mask), name
    for name, value in expected.finalize().state_dict().items():
        torch.testing.assert_close(found.finalize().state_dict()[name], value, msg=name)


@pytest.fixture(scope="module")
def lightning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("lightning.pytorch")


@pytest.fixture
def lightning_run(lightning, tmp_path):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def training_step(self, batch, _):
            return cross_entropy(self.net, batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def fit(steps, checkpoint=None, accumulate=1, **options):
        options = {"schedule": CUBIC, "example_inputs": images(1, 0)} | options
        callback = ap.LightningSparsifier(config(), "net", **options)
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback],
            accumulate_grad_batches=accumulate,
            default_root_dir=tmp_path,
        )
        module = Module().train()
        module.net.train()
        trainer.fit(module, loader(), ckpt_path=checkpoint, weights_only=False if checkpoint else None)
        return trainer, callback.sparsifier

    return fit


@pytest.mark.filterwarnings("ignore")
def test_lightning_trains_what_a_plain_loop_trains(lightning_run):
    assert_same(lightning_run(12)[1], plain_loop(12))


@pytest.mark.filterwarnings("ignore")
def test_lightning_resumes_in_the_middle_of_the_schedule(lightning_run, tmp_path):
    trainer, _ = lightning_run(5)
    trainer.save_checkpoint(tmp_path / "middle.ckpt")
    assert_same(lightning_run(12, tmp_path / "middle.ckpt")[1], plain_loop(12))


@pytest.mark.filterwarnings("ignore")
def test_lightning_counts_optimizer_steps_not_batches(lightning_run):
    assert lightning_run(6, accumulate=2)[1].steps == 6


@pytest.mark.filterwarnings("ignore")
def test_callbacks_refuse_what_a_trainer_cannot_restore(lightning_run):
    for make in (ap.LightningSparsifier, ap.TransformersSparsifier):
        with pytest.raises(UsageError, match="a trainer restores full-sized checkpoints, so remove is 'end'"):
            make(config(), remove="now")


@pytest.fixture(scope="module")
def bert():
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        made = transformers.BertConfig(vocab_size=50, max_position_embeddings=12, num_labels=2, **size)
        state = transformers.BertForSequenceClassification(made).state_dict()

    def build():
        model = transformers.BertForSequenceClassification(made)
        model.load_state_dict(state)
        return model

    return transformers, build


@pytest.fixture
def bert_run(bert, tmp_path):
    transformers, build = bert
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 50, (64, 12), generator=generator)
    data = [{"input_ids": row, "labels": int(row[0] > 25)} for row in ids]
    intermediate = "bert.encoder.layer.0.intermediate.dense"
    layers = {
        intermediate: {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5},
        "bert.encoder.layer.0.output.dense": {"granularity": "2:4", "criterion": "magnitude_l1"},
    }
    chosen = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(build())), layers=layers)

    def fit(folder, stop=None, resume=None):
        class Stop(transformers.TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = control.should_training_stop or state.global_step == stop

        callback = ap.TransformersSparsifier(chosen, schedule=CUBIC, example_inputs={"input_ids": ids[:2]})
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / folder),
            max_steps=12,
            per_device_train_batch_size=4,
            save_steps=5,
            learning_rate=1e-2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            seed=0,
        )
        trainer = transformers.Trainer(build(), arguments, train_dataset=data, callbacks=[callback, Stop()])
        trainer.train(resume_from_checkpoint=resume)
        return callback.sparsifier

    return fit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_trains_and_resumes(bert_run, tmp_path):
    whole = bert_run("whole")
    assert all(layer.masked == pytest.approx(0.5) for layer in whole.report().layers.values())
    smaller = whole.finalize()
    assert smaller.bert.encoder.layer[0].intermediate.dense.out_features == 16
    bert_run("stopped", stop=5)
    checkpoint = tmp_path / "stopped" / "checkpoint-5"
    assert (checkpoint / "sparsifier.pt").is_file()
    resumed = bert_run("stopped", resume=str(checkpoint))
    assert_same(resumed, whole)
    (checkpoint / "sparsifier.pt").unlink()
    with pytest.raises(ConfigError, match=r"sparsifier.pt is missing; resume from a checkpoint that was pruned"):
        bert_run("stopped", resume=str(checkpoint))


@pytest.mark.filterwarnings("ignore")
def test_accelerate_trains_what_a_plain_loop_trains_and_keeps_the_state(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = small_net().train()
    model, optimizer, data = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), loader()
    )
    sparsifier = ap.Sparsifier(model, config(), optimizer, CUBIC, example_inputs=images(1, 0))
    accelerator.register_for_checkpointing(sparsifier)
    for step, batch in enumerate(data):
        optimizer.zero_grad()
        accelerator.backward(cross_entropy(model, batch))
        optimizer.step()
        sparsifier.step()
        if step == 4:
            accelerator.save_state(tmp_path / "state")
    expected = plain_loop(12)
    assert_same(sparsifier, expected)
    accelerator.load_state(tmp_path / "state")
    assert sparsifier.steps == 5
    assert int((~sparsifier.masks["inner.weight"]).sum()) < int((~expected.masks["inner.weight"]).sum())


@pytest.mark.slow
def test_two_processes_have_the_same_masks_and_weights(tmp_path):
    script = str(HERE / "data_parallel.py")
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in processes:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["masks"].keys() == other["masks"].keys() >= {"inner.weight", "stem.weight"}
    for name, mask in one["masks"].items():
        assert torch.equal(mask, other["masks"][name]), name
        assert not one["model"][name][~mask].any()
    for name in dict(SmallNet().named_parameters()):
        assert torch.equal(one["model"][name], other["model"][name]), name
    assert one["blocks"] == other["blocks"] == blocks_masked(0) != blocks_masked(1)


@pytest.mark.slow
def test_sharded_parameters_are_refused(tmp_path):
    ran = subprocess.run(
        [sys.executable, str(HERE / "sharded.py"), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert "is sharded (FSDP or tensor parallel)" in ran.stdout
    assert "train with DistributedDataParallel, or finalize before sharding" in ran.stdout
