"""The report of a run: one page that opens from disk, the same in Markdown, and the files that scripts read.

The same records give the same bytes: nothing in it depends on when or where it is rendered.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from autoprune.errors import RunDirectoryError, StorageError
from autoprune.results.details import (
    energy_table,
    failures,
    group_table,
    layer_table,
    pinned_table,
    stopped,
    timings_table,
)
from autoprune.results.export import config_path, front_csv, front_json, trials_csv
from autoprune.results.facts import facts
from autoprune.results.formats import plain
from autoprune.results.picks import picks
from autoprune.results.plots import Plot, plots
from autoprune.results.summary import headline
from autoprune.results.table import baseline_table, escape_markdown, front_table, picks_table, to_markdown
from autoprune.spec.front import DENSE, front
from autoprune.spec.record import RunRecords, write_whole

_TEMPLATES = Path(__file__).parent / "templates"
_CONFIG_NAME = re.compile(r"\d{3,}\.yaml")


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report.

    Attributes:
        html: The page.
        markdown: The same without plots.
        front_csv: The front as a table.
        trials_csv: All trials as a table.
        front_json: The front as a document (``autoprune/front/1``).
        configs: One pruning config for each pruned front trial, by number.
    """

    html: Path
    markdown: Path
    front_csv: Path
    trials_csv: Path
    front_json: Path
    configs: tuple[Path, ...]


@dataclass(frozen=True)
class ConfigText:
    """A front trial's config as the page shows it."""

    number: int
    titles: tuple[str, ...]
    path: str
    text: str
    command: str


def write_report(records: RunRecords, directory: Path) -> ReportPaths:
    """Write the report of ``records`` into ``directory``, which is made if it is missing.

    Configs that an earlier render left and that are no longer on the front are removed; other files stay.

    Raises:
        RunDirectoryError: The directory cannot be written.
        StorageError: The disk is full.
    """
    paths = ReportPaths(
        html=directory / "index.html",
        markdown=directory / "report.md",
        front_csv=directory / "front.csv",
        trials_csv=directory / "trials.csv",
        front_json=directory / "front.json",
        configs=tuple(directory / config.path for config in _configs(records)),
    )
    texts = {
        paths.html: render_html(records),
        paths.markdown: render_markdown(records),
        paths.front_csv: front_csv(records),
        paths.trials_csv: trials_csv(records),
        paths.front_json: front_json(records),
        **{directory / config.path: config.text for config in _configs(records)},
    }
    try:
        (directory / "configs").mkdir(parents=True, exist_ok=True)
        for old in sorted((directory / "configs").iterdir()):
            if _CONFIG_NAME.fullmatch(old.name) and old not in paths.configs:
                old.unlink()
        for path, text in texts.items():
            write_whole(path, text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise StorageError(
                f"no report can be written to {directory} ({error}); free some space, then run 'autoprune report'"
            ) from error
        raise RunDirectoryError(f"no report can be written to {directory} ({error}); give a writable folder") from error
    return paths


def render_html(records: RunRecords) -> str:
    """Return the page: self-contained, without network, every text of users escaped.

    A content security policy lets run only the two scripts that the page is built with, by their hashes.
    """
    drawn = plots(records)
    scripts = page_scripts() if drawn else ()
    return template("report.html.j2").render(
        **_content(records),
        plots=drawn,
        figures=figures_json(drawn),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own text and plotly's library
        script_hashes=[script_hash(script) for script in scripts],
    )


def render_markdown(records: RunRecords) -> str:
    """Return the report as GitHub Markdown, without plots."""
    return template("report.md.j2").render(**_content(records))


def _content(records: RunRecords) -> dict[str, Any]:
    """What both templates tell, in one place."""
    return {
        "study": records.study,
        "spec": records.study.spec,
        "headline": headline(records),
        "picks_table": picks_table(records, config_path) if picks(records).named() else None,
        "front_table": front_table(records, config_path) if front(records) else None,
        "baseline_table": baseline_table(records),
        "configs": _configs(records),
        "layer_table": layer_table(records),
        "facts": facts(records),
        "energy_table": energy_table(records),
        "group_table": group_table(records),
        "pinned_table": pinned_table(records),
        "failures": failures(records),
        "stopped": stopped(records),
        "timings_table": timings_table(records),
    }


def _configs(records: RunRecords) -> tuple[ConfigText, ...]:
    chosen, task = picks(records), shlex.quote(plain(records.study.spec.task))
    return tuple(
        ConfigText(
            number=trial.number,
            titles=chosen.titles(trial),
            path=config_path(trial),
            text=trial.config.to_yaml(),
            command=f"autoprune apply {config_path(trial)} --task {task} -o pruned-{trial.number:03d}.safetensors",
        )
        for trial in front(records)
        if trial.config is not None and trial.origin != DENSE
    )


def figures_json(drawn: tuple[Plot, ...]) -> Markup:
    """Return the figures as JSON that no HTML parser mistakes for markup."""
    text = "[" + ",".join(f'{{"id":{json.dumps(p.key)},"height":{p.height},"figure":{p.figure}}}' for p in drawn) + "]"
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)  # noqa: S704 - no markup can be left in it


def page_scripts() -> tuple[str, ...]:
    """Return the two scripts that a page with plots is built with: plotly's library and our own."""
    return _plotly_js(), (_TEMPLATES / "plots.js").read_text(encoding="utf-8")


def _plotly_js() -> str:
    # Not plotly.offline.get_plotlyjs: that imports IPython where it is installed.
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return re.sub(r"</(?=script)", r"<\\/", text.replace("\r\n", "\n"), flags=re.IGNORECASE)


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy lets a script run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _nobreak(text: str) -> str:
    """Hold a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=(?:%|pp|ms|mJ|[kMG]?B?\b))", "\u00a0", text)


def _fence(text: str, language: str = "") -> str:
    """A Markdown code block that its content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def template(name: str) -> jinja2.Template:
    """Return a template of this package, with its filters."""
    return _environment().get_template(name)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "plain": plain,
        "nobreak": _nobreak,
        "md": lambda text: escape_markdown(str(text)),
        "md_table": to_markdown,
        "fence": _fence,
    }
    return environment
