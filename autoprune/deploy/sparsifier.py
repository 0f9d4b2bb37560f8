"""``Sparsifier``: a config taken through a training loop."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.deploy.achieved import Achieved, compare
from autoprune.deploy.fitting import (
    check_arguments,
    check_blocks,
    check_data,
    check_method,
    check_optimizer,
    check_thresholds,
    plain_model,
    plain_optimizer,
)
from autoprune.deploy.remaining import Remaining
from autoprune.deploy.sparsity import SparsityReport, report_of
from autoprune.deploy.state import SparsifierState, check_masks, check_state, pack_state, settings_of, unpack_state
from autoprune.errors import ConfigError, UsageError
from autoprune.graph.groups import ModelGraph, layers_alone
from autoprune.graph.trace import check_inputs, evaluation_mode, output_tensors
from autoprune.pruning.granularity import DEPTH, granularity
from autoprune.pruning.plan import blocks_that_go, check_config, plan_units
from autoprune.pruning.proof import proven_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.shrink import shrink
from autoprune.pruning.surgery import prune
from autoprune.spec.config import LayerChoice, PruningConfig
from autoprune.spec.record import TrialRecord
from autoprune.training.evaluation import EvaluationLook
from autoprune.training.hold import Hold
from autoprune.training.masks import Masks, agreed, kept_weights, masks_of, plan_of
from autoprune.training.methods import METHODS, Method, Training
from autoprune.training.progress import HeldScores, config_at
from autoprune.training.schedules import OneShotSchedule, Schedule
from autoprune.training.units import units_of
from autoprune.trial.task import Calibration, positional


class Sparsifier:
    """Prunes a network while your own loop trains it.

    ::

        sparsifier = ap.Sparsifier(model, config, optimizer, schedule=ap.CubicSchedule(begin=500, end=7500, every=100))
        for batch in loader:
            ...
            optimizer.step()
            sparsifier.step()
        smaller = sparsifier.finalize()

    Masks are kept by hooks of the optimizer; the model itself has no parametrizations, so its ``state_dict`` has its
    own names, and it may be compiled, wrapped in DistributedDataParallel or averaged. It has no hooks either, but
    under a method with noise (L0, variational dropout), which a pass in evaluation mode does not see. Time is counted
    in steps of the optimizer: with gradient accumulation ``step()`` may be called after every batch, and a step that
    a gradient scaler skips does not count.

    The recipe: keep the learning-rate decay of the dense training, and let masks change between about 10 % and 75 % of
    the steps (:class:`CubicSchedule`); the config's ``recovery`` is the search's and is not run here. From a trained
    checkpoint, a tenth of the original learning rate and a tenth of its steps are a start.

    To go on after a restart: build model, optimizer and sparsifier as before, then load the state of all three, the
    sparsifier's last; where ``remove="now"`` first, for it makes the model as small as it was.

    Args:
        model: What trains, on its device already; pruned in place. DistributedDataParallel or compile may wrap it.
        config: A chosen config.
        optimizer: Holds every weight that the config prunes.
        schedule: When, and how sparse by then; all at once if left out.
        method: How; an instance, or a registry key ("rigl") for its defaults. "gradual" asks the config's criteria.
        example_inputs: One batch as the model takes it; needed where the config removes channels or heads.
        batches: Calibration data, where criteria need data: a list, a loader or a function.
        loss: ``loss(model, batch)``, where criteria need gradients.
        remove: "end": channels are masked, and removed by :meth:`finalize`. "now": they are cut out of model and
            optimizer at every change of masks. Residual blocks are masked, all their parameters zero, either way.

    Attributes:
        achieved: After :meth:`finalize`: what the smaller network was compared with, and where it differs.

    Raises:
        ConfigError: The config is for another architecture, the optimizer lacks a layer, or data is missing.
        UsageError: An argument has the wrong type, or the parameters are sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        config: PruningConfig,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None = None,
        *,
        method: Method | str = "gradual",
        example_inputs: Any = None,
        batches: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
        loss: Callable[[nn.Module, Any], Tensor] | None = None,
        remove: Literal["end", "now"] = "end",
    ) -> None:
        data = Calibration(() if example_inputs is None else example_inputs, batches, loss)
        self._prepare(model, config, optimizer, schedule or OneShotSchedule(), _made(method), data, remove)
        if self.schedule.due(0):
            self._update()
        self._training_mode()

    @classmethod
    def resume(
        cls,
        state: Mapping[str, Any],
        model: nn.Module,
        config: PruningConfig,
        optimizer: torch.optim.Optimizer,
        **options: Any,
    ) -> Sparsifier:
        """Build a sparsifier that goes on from a state, on a model whose weights are already those of that moment.

        What constructing and then loading does, without pruning at step 0 in between: for callbacks, which a trainer
        calls after it has restored the model.

        Args:
            state: What :meth:`state_dict` returned.
            model: As for :class:`Sparsifier`.
            config: As for :class:`Sparsifier`.
            optimizer: As for :class:`Sparsifier`.
            options: The other arguments of :class:`Sparsifier`.

        Raises:
            ConfigError: As :meth:`load_state_dict` and :class:`Sparsifier`.
        """
        made = cls.__new__(cls)
        inputs = options.get("example_inputs")
        data = Calibration(() if inputs is None else inputs, options.get("batches"), options.get("loss"))
        schedule = options.get("schedule") or OneShotSchedule()
        method = _made(options.get("method", "gradual"))
        made._prepare(model, config, optimizer, schedule, method, data, options.get("remove", "end"))
        made.load_state_dict(state)
        return made

    def _prepare(
        self,
        model: nn.Module,
        config: PruningConfig,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        method: Method,
        data: Calibration,
        remove: str,
    ) -> None:
        """Check everything; nothing is changed yet."""
        check_arguments(config, schedule, method, remove)
        self.model = plain_model(model)
        if remove == "now" and self.model is not model:
            raise UsageError(
                "remove='now' changes shapes under a wrapper; use remove='end', or wrap the finished model"
            )
        self.config = config
        self.schedule = schedule
        self.method = method
        self.remove = remove
        self.achieved: Achieved | None = None
        self._data = data
        self._args = positional(data.example_inputs)
        self._kwargs: Mapping[str, Any] = data.example_inputs if isinstance(data.example_inputs, Mapping) else {}
        self._followers: list[nn.Module] = []
        self._masks = Masks()
        optimizer = plain_optimizer(optimizer)
        graph = self._traced()
        check_config(config, graph)
        check_optimizer(config, graph, self.model, optimizer)
        check_thresholds(config, schedule)
        check_method(config, method)
        check_blocks(config, graph, self.model, self._args, self._kwargs)
        check_data(config, ScoreBook(data.evidence(self.model, graph, config.seed)))
        self._remaining = Remaining(graph)
        self.training = Training(
            self.model,
            optimizer,
            config,
            graph,
            schedule,
            dict(self.model.named_parameters()),
            units_of(config, graph),
        )
        self._hook(optimizer)

    def _traced(self) -> ModelGraph:
        """Return the model's graph; its layers alone where nothing is to be removed, or no inputs are there."""
        removing = any(granularity(choice.granularity).removed for _, choice in self.config.choices())
        if not removing or not (self._args or self._kwargs):
            return layers_alone(self.model, "their coupling is found by running the model; give example_inputs=")
        graph, _ = proven_groups(copy.deepcopy(self.model).eval(), self._args, self._kwargs, self.config.seed)
        return graph

    def _hook(self, optimizer: torch.optim.Optimizer) -> None:
        method, training = self.method, self.training
        method.start(training)
        self._hold = Hold(
            optimizer,
            on_gradient=lambda: method.on_gradient(training),
            after_step=lambda: method.after_step(training),
            before_forward=lambda: method.before_forward(training),
        )
        self._look = EvaluationLook(self.model, self._settle, self._training_mode) if method.noisy else None

    @property
    def steps(self) -> int:
        """Optimizer steps that the schedule has seen."""
        return self.training.step

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Parameter name to its kept entries (bool, in its shape), where something is masked."""
        return dict(self.training.kept)

    def step(self) -> bool:
        """Follow the optimizer: change masks where the schedule says so.

        Returns:
            Whether masks changed. Without a new step of the optimizer nothing happens.
        """
        training = self.training
        before, training.step = training.step, self._hold.steps
        if not any(self.schedule.due(step) for step in range(before + 1, training.step + 1)):
            return False
        self._update()
        self._training_mode()
        return True

    def follow(self, averaged: nn.Module) -> None:
        """Keep the masks in an averaged copy of the model too (``AveragedModel.module``): zero there, now and later.

        Without it an average remembers what was pruned. :meth:`finalize` takes it.

        Raises:
            UsageError: Its parameters have other names or shapes.
        """
        shapes = {name: tuple(weight.shape) for name, weight in averaged.named_parameters()}
        mine = {name: tuple(weight.shape) for name, weight in self.training.parameters.items()}
        if shapes != mine:
            odd = sorted(set(shapes.items()) ^ set(mine.items()))[0][0]
            raise UsageError(f"the averaged model differs in parameter {odd!r}; give the copy itself, averaged.module")
        self._followers.append(averaged)
        self._mask_followers()

    @contextmanager
    def settled(self) -> Iterator[nn.Module]:
        """Give the model as it is evaluated and saved: for L0 and variational dropout without the noise of training."""
        if self._look is not None:
            self._look.release()
        self._settle()
        try:
            yield self.model
        finally:
            self._training_mode()
            if self._look is not None:
                self._look.hold()

    def finalize(
        self, averaged: nn.Module | None = None, *, early: bool = False, record: TrialRecord | None = None
    ) -> nn.Module:
        """Return the smaller network: channels cut out, weight patterns zero. The model that trained stays as it is.

        Args:
            averaged: A copy given to :meth:`follow`, to be made smaller instead of the model.
            early: Accept the sparsity reached so far, before the schedule has ended; :attr:`achieved` then tells what
                is not as the config asks.
            record: Of the trial that the config is from: channels, zeros, parameters and MACs are compared too.

        Returns:
            A module of the same class, in evaluation mode, without hooks, as :func:`autoprune.save_pruned` takes it.

        Raises:
            UsageError: The schedule has not ended, or ``averaged`` is not followed.
            SurgeryError: The smaller module does not run on the example inputs, or is not what config and record ask
                (as :func:`autoprune.verify` compares them).
        """
        if self.steps < self.schedule.end and not early:
            raise UsageError(
                f"the schedule ends at step {self.schedule.end} and {self.steps} were taken; train on, call step() "
                "after every optimizer.step(), or give early=True for the sparsity reached so far"
            )
        if averaged is not None and not any(averaged is each for each in self._followers):
            raise UsageError("the averaged model does not follow the masks; call follow(averaged) before training")
        inputs = self._args, self._kwargs
        with self.settled() as model:
            smaller = prune(averaged if averaged is not None else model, plan_of(self._masks, self.training.graph))
            wanted = output_tensors(check_inputs(model, *inputs)) if any(inputs) else None
        smaller.eval()
        self.achieved = compare(smaller, record or self.config, self._remaining.dense, *inputs, wanted)
        if not early:
            self.achieved.raise_for_differences()
        return smaller

    def report(self) -> SparsityReport:
        """Return what is pruned so far, layer by layer, and which zeros the method has grown by itself."""
        with self.settled():
            return report_of(
                self.training,
                self._remaining.dense,
                self._remaining.removed(self._masks.gone),
                plan_of(self._masks, self.training.graph),
            )

    def close(self) -> None:
        """Let go of the optimizer: masks are no longer kept."""
        self._hold.release()
        if self._look is not None:
            self._look.release()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values that ``torch.save`` writes and ``torch.load(weights_only=True)`` reads."""
        state = SparsifierState(
            step=self.training.step,
            config=self.config.signature,
            schedule=repr(self.schedule),
            method=self.method.key,
            remove=self.remove,
            masks=replace(self._masks, gone=self._remaining.removed(self._masks.gone)),
            method_state=self.method.state_dict(),
            settings=settings_of(self.method),
        )
        return pack_state(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. Nothing changes where it does not fit.

        Raises:
            ConfigError: It is of another config, schedule, method or model, or no state of a sparsifier.
        """
        found = unpack_state(state)
        check_state(found, self.config, self.schedule, self.method, self.remove)
        check_masks(found, self._remaining.dense, cut=self.remove == "now")
        gone = {name: units for name, units in found.masks.gone.items() if units.numel()}
        if self.remove == "now":
            removed = self._remaining.removed(self._masks.gone)
            back = [
                name for name in removed if not set(removed[name].tolist()) <= set(gone.get(name, Tensor()).tolist())
            ]
            if back:
                raise ConfigError(
                    f"group {back[0]!r} has already lost channels that the state has; build the model anew"
                )
            self._cut(self._remaining.present(gone))
            gone = {}
        self.training.step = self._hold.steps = found.step
        self.method.load_state_dict(found.method_state)
        self._set_masks(replace(found.masks, gone=gone))
        self._training_mode()

    def _update(self) -> None:
        """Decide anew what is masked, by the sparsity that the schedule wants at this step."""
        training = self.training
        config = config_at(self.config, self._wanted)
        with self.settled(), evaluation_mode(self.model):
            book = ScoreBook(self._data.evidence(self.model, training.graph, self.config.seed))
            held = HeldScores(book, training.kept, self._masks.gone, self._masks.blocks)
            plan = plan_units(config, training.graph, self.method.scores(training) or held)
            plan = replace(plan, skipped=blocks_that_go(config, training.graph, held))
        masks = agreed(masks_of(plan, training.graph), training.graph)
        if self.remove == "now" and masks.gone:
            shrunk = plan_of(masks, training.graph)
            self._cut(masks.gone)
            masks = replace(masks, gone={}, patterns=dict(shrunk.masks))
        self._set_masks(masks)
        with torch.no_grad():
            self.method.after_update(training)

    def _wanted(self, name: str, choice: LayerChoice) -> float:
        if choice.threshold is not None:
            return self.schedule.sparsity(self.steps, 1.0)
        sparsity = self.schedule.sparsity(self.steps, choice.fraction)
        if self.remove == "now" and choice.granularity != DEPTH and granularity(choice.granularity).removed:
            return self._remaining.still_to_go(name, sparsity)  # what is cut already counts
        return sparsity

    def _cut(self, gone: Mapping[str, Tensor]) -> None:
        """Cut units (numbered as in the present model) out of the model, its averages and the optimizer."""
        training = self.training
        before = training.graph
        training.graph = shrink(self.model, before, gone, training.optimizer)
        for averaged in self._followers:
            shrink(averaged, before, gone, training.optimizer)
        self._remaining.cut(gone)
        training.units = units_of(self.config, training.graph)

    def _set_masks(self, masks: Masks) -> None:
        training = self.training
        self._masks = masks
        training.kept = kept_weights(masks, training.graph, training.parameters)
        self._hold.set_masks(training.parameters, training.kept)
        self._mask_followers()

    def _mask_followers(self) -> None:
        with torch.no_grad():
            for averaged in self._followers:
                weights = dict(averaged.named_parameters())
                for name, mask in self.training.kept.items():
                    weights[name].masked_fill_(~mask.to(weights[name].device), 0.0)

    def _settle(self) -> None:
        with torch.no_grad():
            self.method.settle(self.training)

    def _training_mode(self) -> None:
        with torch.no_grad():
            self.method.before_forward(self.training)


def _made(method: Method | str) -> Method:
    if isinstance(method, str):
        return METHODS.get(method)()
    if not isinstance(method, Method):
        raise UsageError(
            f"method is {type(method).__name__}; give a method or its key, one of {', '.join(METHODS.names())}"
        )
    return method
