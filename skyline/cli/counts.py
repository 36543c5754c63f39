"""An estimate as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from skyline.schemas.estimates import Estimate, Figure
    from skyline.schemas.jobs import Bound


def ranges_table(estimate: Estimate) -> Table:
    """What networks cost at all, by target and objective."""
    table = Table(title="what networks of the space cost, exactly", title_justify="left")
    for name in ("cells", "channels", "stem", "objective"):
        table.add_column(name)
    for name in ("least", "most", "bound", "left by the bound"):
        table.add_column(name, justify="right")
    for target in estimate.targets:
        skeleton = [str(part) if part is not None else "" for part in (target.cells, target.channels, target.stem)]
        for key, found in target.ranges.items():
            bound = _bound(found.bound) if found.bound is not None else ""
            if found.possible is None:
                table.add_row(*skeleton, Text(key), "", "", bound, Text(found.reason or "not known"))
                continue
            left = f"{found.left.floor:,} to {found.left.ceiling:,}" if found.left is not None else "nothing"
            table.add_row(*skeleton, Text(key), f"{found.possible.floor:,}", f"{found.possible.ceiling:,}", bound, left)
    return table


def _bound(bound: Bound) -> str:
    sides = [f"{sign} {side:,.12g}" for sign, side in ((">=", bound.min), ("<=", bound.max)) if side is not None]
    return " and ".join(sides)


def estimate_lines(estimate: Estimate) -> list[Text]:
    """What stands below the table of costs: work, images, who could do it."""
    images, search, verification = estimate.images, estimate.search, estimate.verification
    counts = [(name, getattr(images, name)) for name in ("train", "validation", "select", "test")]
    trained = (
        f"{_count(search.trainings, 'training')}, {_count(search.epochs, 'epoch')} in all"
        if search.trainings is not None and search.epochs is not None
        else f"trainings not known: {search.reason}"
    )
    pairs = [
        ("images", ", ".join(f"{name} {count:,}" for name, count in counts if count is not None)),
        ("", images.reason or ""),
        (
            "search",
            f"at most {_count(search.evaluations, 'evaluation')}, {_count(search.candidates, 'candidate')}; {trained}",
        ),
        (
            "verification",
            f"at most {_count(verification.candidates, 'candidate')}; {_count(verification.trainings, 'training')}, "
            f"{_count(verification.epochs, 'epoch')} in all",
        ),
        ("workers", ", ".join(estimate.workers)),
        ("waiting for", estimate.waiting_for or ""),
        *((name, _figure(figure)) for name, figure in (("memory", estimate.memory), ("time", estimate.time))),
    ]
    return [Text.assemble((f"{name:<14}", "dim"), value) for name, value in pairs if value]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _figure(figure: Figure) -> str:
    return f"{figure.value:,.0f}" if figure.value is not None else figure.reason or "not known"
