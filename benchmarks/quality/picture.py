"""Quality against cost as one SVG file: medians over seeds with bands, a panel for each cost column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, GAP, LEFT, TOP, BOTTOM = 360, 300, 24, 56, 40, 56
LEGEND_ROW, LEGEND_COLUMNS = 18, 4
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8d5a97", "#c77f0a", "#00798c", "#6b4f3f", "#555b6e", "#b0307c", "#7a8b00")


@dataclass(frozen=True)
class Point:
    """A median with its interval at a cost (multiply-adds)."""

    cost: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Panel:
    """What one cost column shows: curves by method, and levels that cost nothing or are no search."""

    title: str
    curves: Mapping[str, Sequence[Point]]
    levels: Mapping[str, float]


def picture(panels: Sequence[Panel], lowest: float, label: str) -> str:
    """SVG text. The vertical axis goes from ``lowest`` to 1; what lies below is drawn at its foot."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    levels = list(dict.fromkeys(name for panel in panels for name in panel.levels))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate([*names, *levels])}
    legend = -(-len(colours) // LEGEND_COLUMNS) * LEGEND_ROW
    width = LEFT + len(panels) * (WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM + legend
    costs = [point.cost for panel in panels for points in panel.curves.values() for point in points if point.cost > 0]
    first, last = (math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))) if costs else (0, 1)
    last = max(last, first + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="14" y="{TOP + HEIGHT / 2:.0f}" transform="rotate(-90 14 {TOP + HEIGHT / 2:.0f})" '
        f'text-anchor="middle">{escape(label)}</text>',
    ]
    for number, panel in enumerate(panels):
        left = LEFT + number * (WIDTH + GAP)

        def across(cost: float, left: float = left) -> float:
            share = (math.log10(cost) - first) / (last - first) if cost > 0 else 0.0
            return left + WIDTH * min(max(share, 0.0), 1.0)

        def down(value: float) -> float:
            return TOP + HEIGHT * (1.0 - min(max((value - lowest) / (1.0 - lowest), 0.0), 1.0))

        parts.append(f'<text x="{left + WIDTH / 2}" y="{TOP - 14}" text-anchor="middle">{escape(panel.title)}</text>')
        parts += _axes(left, first, last, lowest, numbered=number == 0)
        for name, level in panel.levels.items():
            y = down(level)
            parts.append(
                f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colours[name]}" '
                'stroke-dasharray="5 4"/>'
            )
        for name, points in panel.curves.items():
            upper = [f"{across(point.cost):.1f},{down(point.high):.1f}" for point in points]
            lower = [f"{across(point.cost):.1f},{down(point.low):.1f}" for point in reversed(points)]
            middle = " ".join(f"{across(point.cost):.1f},{down(point.median):.1f}" for point in points)
            colour = colours[name]
            parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" opacity="0.12"/>')
            parts.append(f'<polyline points="{middle}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
            parts += [
                f'<circle cx="{across(point.cost):.1f}" cy="{down(point.median):.1f}" r="2.2" fill="{colour}"/>'
                for point in points
            ]
    for place, (name, colour) in enumerate(colours.items()):
        x = LEFT + (place % LEGEND_COLUMNS) * ((width - LEFT) / LEGEND_COLUMNS)
        y = TOP + HEIGHT + BOTTOM + (place // LEGEND_COLUMNS) * LEGEND_ROW
        dash = ' stroke-dasharray="5 4"' if name in levels else ""
        parts.append(
            f'<line x1="{x:.0f}" x2="{x + 22:.0f}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        parts.append(f'<text x="{x + 28:.0f}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(left: float, first: int, last: int, lowest: float, numbered: bool) -> list[str]:
    parts = [f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>']
    for power in range(first, last + 1):
        x = left + WIDTH * (power - first) / (last - first)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="#eee"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + 15}" text-anchor="middle">10'
            f'<tspan dy="-4" font-size="8">{power}</tspan></text>'
        )
    parts.append(
        f'<text x="{left + WIDTH / 2:.0f}" y="{TOP + HEIGHT + 31}" text-anchor="middle">multiply-adds spent</text>'
    )
    step = 0.05
    for number in range(math.ceil(lowest / step), round(1 / step) + 1):
        y = TOP + HEIGHT * (1.0 - (number * step - lowest) / (1.0 - lowest))
        parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        if numbered:
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{number * step:.2f}</text>')
    return parts
