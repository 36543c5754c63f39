"""Makes nas_core/datasets/data/digits.npz out of scikit-learn's copy of the UCI optical digits.

Run it once, with scikit-learn installed: ``python scripts/make_digits.py``. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-not-found]

TARGET = Path(__file__).parent.parent / "nas_core" / "datasets" / "data" / "digits.npz"
TEST = 360
SEED = 20181130


def test_places(labels: np.ndarray) -> np.ndarray:
    """20 % of each class, rounded by largest remainder, drawn with a fixed seed."""
    order = np.argsort(np.random.PCG64(SEED).random_raw(len(labels)), kind="stable")
    exact = np.bincount(labels) * TEST / len(labels)
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: TEST - counts.sum()]] += 1
    return np.sort(np.concatenate([order[labels[order] == label][:count] for label, count in enumerate(counts)]))


def main() -> None:
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    assert (images == digits.images).all() and images.shape == (1797, 8, 8)
    held = np.zeros(len(labels), dtype=bool)
    held[test_places(labels)] = True
    arrays = {"x_train": images[~held], "y_train": labels[~held], "x_test": images[held], "y_test": labels[held]}
    TARGET.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(TARGET, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            # A fixed date, so that the file does not change when it is made again.
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {len(labels) - TEST} training and {TEST} test images")


if __name__ == "__main__":
    main()
