"""The report of a profile: one page that opens from disk, the same in Markdown, and the document itself."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.errors import RunDirectoryError, StorageError
from autoprune.results.page.assets import FIGURE_SCRIPTS, FIGURE_STYLES, assets
from autoprune.results.page.dense import profile_figures
from autoprune.results.profile_tables import (
    device_table,
    headline,
    layer_table,
    measured_step,
    next_step,
    notes,
    payoff_table,
    staircase_table,
)
from autoprune.results.templating import template
from autoprune.spec.profile import ProfileRecord
from autoprune.spec.record import write_whole


@dataclass(frozen=True)
class ProfilePaths:
    """The files of a profile.

    Attributes:
        html: The page.
        markdown: The same without plots.
        json: The document (``autoprune/profile/1``).
    """

    html: Path
    markdown: Path
    json: Path


def write_profile(profile: ProfileRecord, directory: Path) -> ProfilePaths:
    """Write ``profile.html``, ``profile.md`` and ``profile.json`` into ``directory``, which is made if it is missing.

    Raises:
        RunDirectoryError: The directory cannot be written.
        StorageError: The disk is full.
    """
    paths = ProfilePaths(directory / "profile.html", directory / "profile.md", directory / "profile.json")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(paths.json, profile.to_json() + "\n")
        write_whole(paths.markdown, render_profile_markdown(profile))
        write_whole(paths.html, render_profile_html(profile))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise StorageError(f"no profile can be written to {directory} ({error}); free some space") from error
        raise RunDirectoryError(
            f"no profile can be written to {directory} ({error}); give a writable folder"
        ) from error
    return paths


def render_profile_html(profile: ProfileRecord) -> str:
    """Return the page: self-contained, without network, every text of users escaped."""
    figures = profile_figures(profile)
    data = {"figures": [figure.to_data() for figure in figures]}
    return template("profile.html.j2").render(
        **_content(profile), assets=assets(data, FIGURE_SCRIPTS, FIGURE_STYLES), figures=figures
    )


def render_profile_markdown(profile: ProfileRecord) -> str:
    """Return the profile as GitHub Markdown, without plots."""
    return template("profile.md.j2").render(**_content(profile))


def _content(profile: ProfileRecord) -> dict[str, Any]:
    """What both templates tell, in one place."""
    return {
        "profile": profile,
        "headline": headline(profile),
        "next_step": next_step(profile),
        "layer_table": layer_table(profile.device),
        "payoff_table": payoff_table(profile.payoffs, measured_step(profile.staircases)),
        "staircase_table": staircase_table(profile.staircases),
        "device_table": device_table(profile),
        "other_tables": [layer_table(device) for device in profile.others],
        "notes": notes(profile),
    }
