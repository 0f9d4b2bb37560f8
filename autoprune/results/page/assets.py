"""Style, script and data of a page, and the policy that lets nothing else run: one file, no build step.

Scripts are plain files that share one scope, in the order given here; so are styles.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

# What markup is made of, line ends of old JavaScript, and characters that turn the direction of a source.
_MARKS = re.compile("[<>&\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_HERE = Path(__file__).parent
_CHARTS = ("dom", "numbers", "scales", "tooltip", "chart", "theme")
REPORT_SCRIPTS = (
    *_CHARTS,
    "model",
    "state",
    "filters",
    "scatter",
    "parallel",
    "skyline",
    "config",
    "listing",
    "report",
)
FIGURE_SCRIPTS = (*_CHARTS, "figures")
REPORT_STYLES = ("base", "chart", "report")
FIGURE_STYLES = ("base", "chart")


@dataclass(frozen=True)
class Assets:
    """What a page carries.

    Attributes:
        style: All CSS.
        script: All JavaScript.
        data: JSON that no HTML parser mistakes for markup.
        policy: Content security policy: no network, this style and this script alone, known by their hashes.
    """

    style: Markup
    script: Markup
    data: Markup
    policy: str


def assets(data: Any, scripts: Sequence[str], styles: Sequence[str]) -> Assets:
    """Return what a page is built with.

    Args:
        data: What the script reads; finite numbers, text, lists and mappings.
        scripts: Names of files in ``js/``, in order.
        styles: Names of files in ``css/``, in order.
    """
    style = "\n" + "".join(_read("css", name) for name in styles)
    script = '\n(() => {\n"use strict";\n' + "".join(_read("js", name) for name in scripts) + "})();\n"
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    # Our own files: they hold no closing tag, which a test proves.
    return Assets(Markup(style), Markup(script), embedded(data), policy)  # noqa: S704


def embedded(data: Any) -> Markup:
    """Return data as JSON that can stand inside a script element: nothing in it opens or closes a tag or turns text."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(_MARKS.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text))  # noqa: S704 - no markup can be left in it


def _read(kind: str, name: str) -> str:
    return (_HERE / kind / f"{name}.{kind}").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
