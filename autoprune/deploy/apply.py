"""A config applied to a checkpoint: the smaller network, exactly as the search scored it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from autoprune.deploy.achieved import Achieved, config_differences
from autoprune.errors import SurgeryError
from autoprune.graph.trace import check_inputs
from autoprune.pruning.proof import proven_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import PruningConfig, check_is_config
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.task import Calibration, positional


def apply(
    model: nn.Module,
    config: PruningConfig,
    example_inputs: Any,
    *,
    batches: Iterable[Any] | Callable[[], Iterable[Any]] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    finetune: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Return the pruned network of a config.

    With the checkpoint, batches and loss of the search it is the network that the search scored, weight for weight.
    Where the config asks for int8, it is what is quantised: :func:`autoprune.quantize` writes the file that was scored.

    Args:
        model: The dense network; not changed.
        config: A chosen config (:func:`autoprune.load_config`).
        example_inputs: One batch as the model takes it: a tensor, a tuple, or a dict.
        batches: Calibration data, where the config's criteria or its recovery need data.
        loss: ``loss(model, batch)``, where its criteria need gradients.
        finetune: ``finetune(model, steps)``, where its recovery fine-tunes.

    Returns:
        A smaller module of the same class, in evaluation mode.

    Raises:
        UsageError: ``config`` is no config.
        ConfigError: The config is for another architecture, or needs data that is not given.
        TraceError: The model cannot run on the example inputs.
        SurgeryError: The smaller module does not run, or is not what the config asks, layer by layer.
    """
    check_is_config(config)
    dense = copy.deepcopy(model).eval()
    args = positional(example_inputs)
    kwargs: Mapping[str, Any] = example_inputs if isinstance(example_inputs, Mapping) else {}
    graph, _ = proven_groups(dense, args, kwargs, config.seed)
    data = Calibration(example_inputs, batches, loss, finetune)
    book = ScoreBook(data.evidence(dense, graph, config.seed))
    pruned = pruned_model(dense, graph, book, config)
    recover_pruned(pruned, config, data)
    try:
        check_inputs(pruned.model, args, kwargs)
    except Exception as error:
        raise SurgeryError(f"the smaller model does not run ({error}); please report this with the model") from error
    Achieved(tuple(config_differences(pruned.model, config, graph))).raise_for_differences()
    return pruned.model
