"""How each ATen operator carries, ties or pins channel identities.

A rule takes the call and returns the identities of its output. Whatever merely moves data runs on the identities
themselves. An operator without a rule pins everything that enters it: the worst case is a channel that could have gone
and stays, never a wrong network. Each module of this package registers the rules of one family.
"""

from typing import Any

from autoprune.graph.rules import attention, channels, movement, normalisation, pointwise, reshape, space
from autoprune.graph.rules.call import RULES, SIZE, Call, Findings, Stored, unknown

FAMILIES = (channels, normalisation, pointwise, space, movement, reshape, attention)
"""Imported for the rules that they register."""


def apply_rule(call: Call) -> Any:
    """Return the identities of a call's output, by its operator's rule or by the rule for unknown operators."""
    return RULES.get(call.operator, unknown)(call)


__all__ = ["FAMILIES", "SIZE", "Call", "Findings", "Stored", "apply_rule"]
