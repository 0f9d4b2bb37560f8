"""Where the command writes: results to standard output, what accompanies them to standard error."""

from __future__ import annotations

from rich.console import Console

out = Console()
err = Console(stderr=True)
