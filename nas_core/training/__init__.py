"""Training of stand-alone networks and of supernet weights."""

from nas_core.training.networks import Training, misclassified
from nas_core.training.seeds import seed_of

__all__ = ["Training", "misclassified", "seed_of"]
