"""What stands around the cells, in supernets and stand-alone networks alike: stem, classifier."""

from __future__ import annotations

from torch import Tensor, nn

from nas_core.architecture import Skeleton
from nas_core.costs import stem_width


class Stem(nn.Module):
    """Images to the first cell's inputs k-2 and k-1 (DARTS: one 3x3 convolution, or three of stride 2 for ImageNet).

    Its batch norms are affine in supernets too, but keep running statistics only where ``track``.
    """

    def __init__(self, skeleton: Skeleton, track: bool = True) -> None:
        super().__init__()
        images, channels = skeleton.input[0], skeleton.channels

        def norm(width: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(width, track_running_stats=track)

        if skeleton.stem == "cifar":
            width = stem_width(skeleton)
            self.first = nn.Sequential(nn.Conv2d(images, width, 3, padding=1, bias=False), norm(width))
            self.second: nn.Module = nn.Identity()
        else:
            half = channels // 2
            self.first = nn.Sequential(
                nn.Conv2d(images, half, 3, 2, padding=1, bias=False),
                norm(half),
                nn.ReLU(),
                nn.Conv2d(half, channels, 3, 2, padding=1, bias=False),
                norm(channels),
            )
            self.second = nn.Sequential(
                nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, padding=1, bias=False), norm(channels)
            )

    def forward(self, x: Tensor) -> list[Tensor]:  # (N, C, H, W) -> two maps
        first = self.first(x)
        return [first, self.second(first)]


class Classifier(nn.Module):
    """Global average pool and a linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        out: Tensor = self.linear(self.pool(x).flatten(1))
        return out


class NormClassifier(Classifier):
    """Batch norm and ReLU, then as the other one (NAS-Bench-201)."""

    def __init__(self, channels: int, classes: int, track: bool = True) -> None:
        super().__init__(channels, classes)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels, track_running_stats=track), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        return super().forward(self.norm(x))


def classifier(skeleton: Skeleton, channels: int, track: bool = True) -> Classifier:
    """The one of a skeleton's frame, behind maps of ``channels``."""
    if skeleton.frame is None:
        return Classifier(channels, skeleton.classes)
    return NormClassifier(channels, skeleton.classes, track)
