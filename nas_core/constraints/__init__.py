"""Bounds on what networks cost, held while a relaxed choice of ops is searched (in the style of RC-DARTS, arXiv
1912.12814; of the paper the abstract alone was read, so that every formula here is a reconstruction). No torch.
"""

from nas_core.constraints.limits import Constraints
from nas_core.constraints.projection import Projected, Projection
from nas_core.constraints.relaxed import Form, Rule, expected

__all__ = ["Constraints", "Form", "Projected", "Projection", "Rule", "expected"]
