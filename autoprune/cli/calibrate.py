"""``autoprune calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from autoprune.cli.streams import err, out
from autoprune.errors import UsageError
from autoprune.spec.record import write_whole

if TYPE_CHECKING:
    from autoprune.cost.calibrate import EnergyFit


@click.command()
@click.argument("device")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Profile  [default: DEVICE-calibrated.yaml]")
@click.option("--budget", default="5m", show_default=True, help="Time of all measurements, as in 90s or 5m.")
@click.option("--layers", type=click.IntRange(min=35, max=200), default=84, show_default=True, help="Random layers.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of torch.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the layers.")
def calibrate(device: str, output: Path | None, budget: str, layers: int, threads: int, seed: int) -> None:
    """Measure this machine and write a profile of DEVICE that is fitted to it.

    Times a large product, copies, an empty operator and random layers, and fits the rates of the latency model, one for
    each kind of layer. Where the processor's energy counters can be read (RAPL), it also measures idle power and the
    energy of layers, and fits the energy model. The new profile says how wrong the fits are on a layer that was left
    out. Name it in a study as 'device: FILE'.
    """
    from autoprune.cost.calibrate import calibrate as fitted_to_this_machine
    from autoprune.cost.calibrate import default_path, why_no_energy
    from autoprune.spec.amounts import duration_s
    from autoprune.spec.hardware import load_device

    try:
        seconds = duration_s(budget)
    except ValueError as error:
        raise UsageError(f"--budget is {budget!r}: {error}") from error
    prior = load_device(device)
    path = output or default_path(prior)
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"a profile's path ends in .yaml or .yml, not {path.suffix or 'nothing'!r}; give -o FILE.yaml")
    with err.status(f"Measuring {layers} layers for about {budget} ..."):
        done = fitted_to_this_machine(prior, path.stem, seconds, layers, threads, seed)
    profile, measured, fit, energy = done.profile, done.measured, done.fit, done.energy
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, profile.to_yaml())
    table = Table("predictor of one layer's time, left out", "mean error", title=profile.title, title_justify="left")
    table.add_row(
        f"roofline, fitted (largest {fit.loo_max:.0%}, rank correlation {fit.loo_spearman:.2f})", f"{fit.loo_mape:.0%}"
    )
    for kind, each in fit.kinds.items():
        rate = "" if each.macs_per_s is None else f", {each.macs_per_s / 1e9:.3g} GMACs/s"
        table.add_row(f"  {kind}: {1e6 * each.launch_s:.3g} us to start{rate}", f"{each.loo_mape:.0%}")
    table.add_row("one rate for all kinds, fitted", f"{fit.one_rate_mape:.0%}")
    table.add_row("MACs only, fitted", f"{fit.macs_only_mape:.0%}")
    table.add_row("DRAM bytes only, fitted", f"{fit.bytes_only_mape:.0%}")
    out.print(table)
    told = f"{len(measured.samples.seconds)} layers in {measured.rounds} rounds, {threads} thread(s)."
    if measured.busy:
        told += f" {measured.busy[:1].upper()}{measured.busy[1:]}."
    if fit.better_baseline:
        told += f" The fitted model is no better than {fit.better_baseline}: rank by measured latency here."
    out.print(Text(told), soft_wrap=True)
    if energy is None:
        said = f"Energy was not measured ({why_no_energy()}); its figures stay priors, ranking only."
        out.print(Text(said), soft_wrap=True)
    else:
        out.print(_energy_table(energy))
    out.print(Text(f"Profile: {path} (device: {path})"), soft_wrap=True)


def _energy_table(fit: EnergyFit) -> Table:
    title = f"{fit.meter}: {fit.idle_w:.3g} W idle, {fit.active_w:.3g} W more at work"
    table = Table("predictor of one layer's energy, left out", "mean error", title=title, title_justify="left")
    table.add_row("power x time + MACs + traffic, fitted", f"{fit.loo_mape:.0%}")
    table.add_row("MACs only, fitted", f"{fit.macs_only_mape:.0%}")
    table.add_row("power x time only, fitted", f"{fit.time_only_mape:.0%}")
    return table
