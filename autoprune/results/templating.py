"""The templates of this package, and the filters that they share."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from autoprune.results.formats import plain
from autoprune.results.table import escape_markdown, to_markdown

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> jinja2.Template:
    """Return a template of this package, with its filters."""
    return _environment().get_template(name)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader((TEMPLATES, TEMPLATES.parent / "page")),
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


def _nobreak(text: str) -> str:
    """Hold a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=(?:%|pp|ms|mJ|[kMG]?B?\b))", "\u00a0", text)


def _fence(text: str, language: str = "") -> str:
    """A Markdown code block that its content cannot close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"
