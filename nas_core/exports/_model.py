"""What is exported, and what every format must do. Imports without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nas_core.architecture import Architecture
from nas_core.costs import count
from nas_core.errors import ExportError, MissingExtraError, NasCoreError

if TYPE_CHECKING:
    from torch import Tensor

    from nas_core.network import Network

LIMIT = 1e-4
"""How far a logit of a file may be from the network's."""

BATCHES = (1, 5)
"""Images that a file is checked with at once: one, and several that it was not traced with."""


@dataclass(frozen=True, eq=False)
class Model:
    """An architecture, and for most formats its trained weights and how images are normalised."""

    architecture: Architecture
    weights: Mapping[str, Tensor] | None = field(default=None, repr=False)
    """State of a nas_core.network.Network; an auxiliary head in it is left out."""
    mean: tuple[float, ...] = ()
    """By channel, in the units of the data set's images."""
    std: tuple[float, ...] = ()
    nonzero: int | None = None
    """Of a network with weight masks: its parameters without those that they make zero."""

    def __post_init__(self) -> None:
        channels = self.architecture.skeleton.input[0]
        if self.weights is not None and not len(self.mean) == len(self.std) == channels:
            raise ExportError(
                f"images have {channels} channels, but there are {len(self.mean)} means and {len(self.std)} standard "
                "deviations; give those of the data set's splits (mean, std)"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or not all(number > 0 for number in self.std):
            raise ExportError(
                f"images cannot be normalised by mean {self.mean} and standard deviation {self.std}; finite numbers "
                "are wanted, and deviations above 0"
            )

    @classmethod
    def load(cls, path: Path) -> Model:
        """Reads a safetensors file with the metadata entry ``skyline``, as verification stores it.

        Raises ExportError for any other file.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["skyline"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            mean, std = (tuple(float(number) for number in facts[key]) for key in ("mean", "std"))
            counted = facts.get("parameters")
            nonzero = None if counted is None else int(counted["nonzero"])
            return cls(Architecture.from_json(facts["architecture"]), weights, mean, std, nonzero)
        except (
            SafetensorError,
            OSError,
            LookupError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
            NasCoreError,
        ) as error:
            raise ExportError(
                f"{path.name} is no weights file of a verified candidate ({type(error).__name__}: {error}); "
                "verify the candidate again"
            ) from error

    @property
    def facts(self) -> dict[str, Any]:
        """What a file says of itself: architecture, mean and standard deviation; with weight masks, its parameters."""
        facts = {"architecture": self.architecture.to_json(), "mean": list(self.mean), "std": list(self.std)}
        return facts if self.parameters is None else {**facts, "parameters": self.parameters}

    @property
    def parameters(self) -> dict[str, int] | None:
        """``all`` that the tensors hold, and ``nonzero``: those that weight masks leave. None without masks."""
        return None if self.nonzero is None else {"all": count(self.architecture).params, "nonzero": self.nonzero}

    @property
    def metadata(self) -> str:
        """``facts`` as JSON: equal text for equal models."""
        return json.dumps(self.facts, sort_keys=True)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The weights without the auxiliary head, on the CPU. Raises ExportError for a model without weights."""
        if self.weights is None:
            raise ExportError(
                f"the format '{name}' needs trained weights, which this candidate does not have; "
                "verify it, or take its architecture (json)"
            )
        return {
            key: tensor.detach().cpu().contiguous()
            for key, tensor in self.weights.items()
            if not key.startswith("auxiliary.")
        }

    def network(self, name: str) -> Network:
        """On the CPU, in evaluation mode, with copies of the weights. Raises ExportError where they do not fit."""
        import torch

        from nas_core.network import Network

        weights = self.tensors(name)
        with torch.random.fork_rng(devices=[]):
            network = Network(self.architecture)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ExportError(f"the weights are not those of architecture {self.architecture.hash}: {error}") from error
        return network.eval()

    def compare(self, name: str, run: Callable[[Tensor], Tensor]) -> float:
        """Largest absolute difference of ``run``'s logits from the network's, on the same random images every time.

        ``run``: normalised images (N, C, H, W), float32 -> (N, classes). Raises ExportError for a difference above
        LIMIT, for logits that are no numbers, and for ones of another shape.
        """
        import torch

        network, generator = self.network(name), torch.Generator().manual_seed(0)
        differences = []
        for batch in BATCHES:
            images = torch.randn((batch, *self.architecture.skeleton.input), generator=generator)
            with torch.no_grad():
                expected, found = network(images), run(images)
            if found.shape != expected.shape:
                raise ExportError(
                    f"the {name} file gives logits of shape {tuple(found.shape)} for {batch} images, the network "
                    f"{tuple(expected.shape)}; the file is not offered"
                )
            differences.append((found.double() - expected.double()).abs().max())
        largest = float(torch.stack(differences).max())  # NaN, where any is
        if not largest <= LIMIT:
            raise ExportError(
                f"a logit of the {name} file differs by {largest:.3g} from the network's, more than {LIMIT:g}; "
                f"the file is not offered (architecture {self.architecture.hash})"
            )
        return largest

    def same_facts(self, name: str, text: str | None) -> None:
        """Raises ExportError unless ``text``, found in a file, is this model's ``metadata``."""
        if text != self.metadata:
            raise ExportError(f"the {name} file does not say which network it holds; the file is not offered")


class Exporter(Protocol):
    """A format. What describes it needs none of its libraries."""

    media_type: ClassVar[str]
    suffix: ClassVar[str]
    """Of its files' names, with the dot."""
    needs_weights: ClassVar[bool]
    """Whether only verified candidates can be had in it."""
    extra: ClassVar[str | None]
    """The extra of skyline-nas that it needs where files are written; None: what every worker has."""

    def write(self, model: Model, path: Path) -> None:
        """Writes the file at ``path``, whatever its suffix. Raises ExportError."""
        ...

    def check(self, path: Path, model: Model) -> float:
        """Loads a file that ``write`` wrote by the format's own runtime; largest difference of a logit.

        Raises ExportError where it is above LIMIT.
        """
        ...


def require(name: str, extra: str, *modules: str) -> None:
    """Raises MissingExtraError unless all these modules can be imported."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtraError(name, missing, extra)
