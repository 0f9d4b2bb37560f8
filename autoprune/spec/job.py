"""The job of a detached search, as the run directory keeps it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autoprune.spec.document import Document


class DetachedJob(Document):
    """A search that was handed to a cluster.

    Attributes:
        name: Ray's name of the job ("ray job logs NAME").
        dashboard: Address of the cluster's job server, HOST:PORT.
    """

    schema_: Literal["autoprune/job/1"] = Field("autoprune/job/1", alias="schema")
    name: str
    dashboard: str
