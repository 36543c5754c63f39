"""The classifiers of sub-nets that end before the network does (MGAS, arXiv 2310.15074, by its code)."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.network import head

PUBLISHED = {32: (11, 8), 16: (7, 4)}
"""By the side of the map: the window of the pooling (stride 3), and the side that it leaves."""
SIDES = (8, 4)
"""Side of the pooled map in the first and in any later stage, for maps of other sizes; never larger than the map."""


class StageHead(nn.Sequential):
    """ReLU, pooling, 1x1 convolution to 128, norm, ReLU, one convolution over the whole map to 256, norm, ReLU, linear.

    For maps of other sizes than the published 32 and 16 the pooling is adaptive.
    """

    def __init__(self, stage: int, channels: int, size: tuple[int, int], classes: int) -> None:
        """``stage`` from 0."""
        side = SIDES[min(stage, len(SIDES) - 1)]
        window, left = PUBLISHED.get(size[0], (0, 0))
        map_size = (min(side, size[0]), min(side, size[1]))
        pool: nn.Module = nn.AdaptiveAvgPool2d(map_size)
        if size[0] == size[1] and left == side:
            pool = nn.AvgPool2d(window, 3, padding=0, count_include_pad=False)
        super().__init__(*head(pool, channels, 256, map_size, classes))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return out
