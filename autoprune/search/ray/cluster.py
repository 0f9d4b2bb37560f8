"""The cluster: joining it, and saying within seconds why a study cannot run on it."""

from __future__ import annotations

import logging
import os
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autoprune.errors import ClusterError, UsageError, one_line
from autoprune.spec.executor import TARGET, RaySpec

_log = logging.getLogger("autoprune")

PATIENCE_S = 20.0
"""Seconds in which a node that is there answers."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        id: Ray's name of it.
        host: Its name or address.
        resources: What it offers.
    """

    id: str
    host: str
    resources: Mapping[str, float]

    def fits(self, wanted: Mapping[str, float]) -> int:
        """Return how many times the node offers what is wanted."""
        return min(int(self.resources.get(name, 0) / amount + 1e-9) for name, amount in wanted.items() if amount)

    def less(self, **taken: float) -> Node:
        """Return the node without what somebody takes of it, by Ray's names."""
        return replace(self, resources={name: has - taken.get(name, 0.0) for name, has in self.resources.items()})


def import_ray() -> Any:
    """Return the package.

    Raises:
        UsageError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU actors see the GPUs that they see anyway
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "executor ray needs Ray, which is not installed; pip install 'autoprune[ray]', or use executor local"
        ) from error
    return ray


def join(spec: RaySpec) -> bool:
    """Connect to the cluster, or start one on this machine for ``address: local``.

    Returns:
        Whether this call connected; False where the process was connected already.

    Raises:
        ClusterError: There is no cluster, or it runs other versions of Ray or Python.
    """
    ray = import_ray()
    if ray.is_initialized():
        return False
    address = spec.address
    if address not in ("auto", "local"):
        _reach(address)
    options: dict[str, Any] = {"runtime_env": runtime_env(spec)} if runtime_env(spec) else {}
    try:
        ray.init(
            address=address,
            logging_level="ERROR",
            log_to_driver=False,
            configure_logging=True,
            include_dashboard=False if address == "local" else None,
            **options,
        )
    except ConnectionError as error:
        raise ClusterError(
            f"there is no Ray cluster at {address!r} that lets this process in ({one_line(error, 120)}); "
            "start one ('ray start --head'), give its address with --ray-address, and set RAY_AUTH_MODE=token where it "
            "asks for a token"
        ) from error
    except RuntimeError as error:
        if "ersion" in str(error):
            raise ClusterError(
                f"the cluster at {address!r} runs other versions than this process ({one_line(error)}); "
                "install the same Python and Ray everywhere"
            ) from error
        raise ClusterError(
            f"the cluster at {address!r} cannot be joined ({one_line(error)}); check the address"
        ) from error
    return True


def check_cluster(spec: RaySpec) -> None:
    """Say why a search cannot run on a cluster, before anything of it is loaded; the cluster is left again.

    Raises:
        UsageError: Ray is missing, there is no cluster, or it does not offer within ``spec.wait`` what is asked.
    """
    ray = import_ray()
    runtime_env(spec)
    if spec.address == "local":
        return
    joined = join(spec)
    try:
        check_offers(spec, wanted_by_trial(spec))
    finally:
        if joined:
            ray.shutdown()


def runtime_env(spec: RaySpec) -> dict[str, Any]:
    """Return Ray's form of what workers need; empty where they need nothing."""
    wanted = spec.runtime_env
    found: dict[str, Any] = {}
    if wanted.working_dir is not None:
        if not Path(wanted.working_dir).is_dir():
            raise ClusterError(
                f"executor.ray.runtime_env.working_dir is {wanted.working_dir!r}, and there is no such folder; "
                "give one that exists"
            )
        found["working_dir"] = wanted.working_dir
    if wanted.pip:
        found["pip"] = list(wanted.pip)
    if wanted.env_vars:
        found["env_vars"] = dict(wanted.env_vars)
    return found


def nodes() -> list[Node]:
    """Return the nodes that are alive."""
    ray = import_ray()
    return [
        Node(str(node["NodeID"]), str(node["NodeManagerHostname"]), node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    ]


def wanted_by_trial(spec: RaySpec) -> dict[str, float]:
    """Return the resources of one trial, by Ray's names."""
    wanted = {"CPU": spec.cpus, "GPU": spec.gpus, **spec.resources}
    if spec.memory_bytes is not None:
        wanted["memory"] = float(spec.memory_bytes)
    return {name: amount for name, amount in wanted.items() if amount}


def check_offers(spec: RaySpec, at_least: Mapping[str, float]) -> list[Node]:
    """Wait until the cluster offers what a trial needs, and the target.

    Args:
        spec: What is asked.
        at_least: Resources that one node must offer for a trial.

    Returns:
        The nodes.

    Raises:
        ClusterError: It does not within ``spec.wait``.
    """
    deadline = time.monotonic() + spec.wait_s
    targets = [*([spec.target] if spec.target is not None else []), *(each.target for each in spec.further.values())]
    while True:
        found = nodes()
        lacks = next(filter(None, (_lacks(found, target) for target in targets)), "")
        if not lacks and not any(node.fits(at_least) for node in found):
            lacks = f"a trial asks for {_shown(at_least)}, and no node offers that; {_best(found, at_least)}"
        if not lacks:
            return found
        if time.monotonic() > deadline:
            raise ClusterError(lacks)
        time.sleep(0.5)


def _lacks(found: Sequence[Node], target: str) -> str:
    resource = TARGET + target
    if any(resource in node.resources for node in found):
        return ""
    offered = sorted({name for node in found for name in node.resources if name.startswith(TARGET)})
    return (
        f"no node offers the target {target!r} (resource {resource!r}; offered: {', '.join(offered) or 'no target'}); "
        f"start Ray on the node of the device with --resources='{{\"{resource}\": 1}}'"
    )


def check_versions(found: Sequence[Node], patience_s: float = PATIENCE_S) -> None:
    """Ask every node what it runs; one that has left since is none.

    Raises:
        ClusterError: A node runs another version of Python, torch or autoprune, or lacks one.
    """
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(versions_here)
    asked = {
        ask.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(): node
        for node in found
    }
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=patience_s)
    for ref in done:
        host = asked[ref].host
        try:
            there: dict[str, str] = ray.get(ref)
        except ray.exceptions.RuntimeEnvSetupError as error:
            last = next((row for row in reversed(str(error).splitlines()) if row.strip()), "no reason given")
            raise ClusterError(
                f"node {host} cannot make what executor.ray.runtime_env asks for ({last.strip()[:300]}); mend that, or "
                "install the packages on the node"
            ) from error
        except Exception as error:
            reason = one_line(getattr(error, "cause", None) or error)
            gone = isinstance(error, ray.exceptions.TaskUnschedulableError | ray.exceptions.NodeDiedError)
            if gone or asked[ref].id not in {node.id for node in nodes()}:
                # Ray takes seconds to notice that a node has left; what runs on it then is run again elsewhere.
                _log.warning("node %s has left the cluster (%s)", host, reason)
                continue
            raise ClusterError(
                f"node {host} cannot run autoprune ({reason}); install the same packages on every node"
            ) from error
        check_same(host, there)
    for ref in late:  # busy, or fetching packages: the actors that start there look again
        _log.warning("node %s did not tell its versions within %.0f s", asked[ref].host, patience_s)


def check_same(host: str, there: Mapping[str, str], here: Mapping[str, str] | None = None) -> None:
    """Compare what two machines run.

    Raises:
        ClusterError: A version differs.
    """
    for name, value in (here or versions_here()).items():
        if there.get(name) != value:
            raise ClusterError(
                f"node {host} has {name} {there.get(name) or 'not at all'}, and the search runs {name} {value}; "
                "install the same version everywhere"
            )


def versions_here() -> dict[str, str]:
    """Return the versions that have to be the same on every node."""
    return {"Python": platform.python_version(), **{name: version(name) for name in ("autoprune", "torch")}}


def _reach(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"the Ray address is {address!r}; give auto, local or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ClusterError(
            f"there is no Ray cluster at {address!r} ({error.strerror or error}); start one ('ray start --head'), "
            "or give its address with --ray-address"
        ) from error


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 1e9:.3g} GB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
    )


def _best(found: Sequence[Node], wanted: Mapping[str, float]) -> str:
    most = {name: max((node.resources.get(name, 0.0) for node in found), default=0.0) for name in wanted}
    return f"the most on one node is {_shown(most)}: ask for less, or add a node"
