"""What can go wrong in nas_core; every message says what came, what would do and what next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LISTED_PARTS = 5
"""How many of the parts that are missing a sentence names."""


class NasCoreError(Exception):
    """Base of all errors raised on purpose by nas_core. Its text can be stored and sent, whatever files are called."""

    def __str__(self) -> str:
        return super().__str__().encode("utf-8", "backslashreplace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


class UnknownNameError(NasCoreError):
    """A name that no registered thing has."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.what, self.name, self.known = what, name, sorted(known)
        super().__init__(f"unknown {what} '{name}'; known: {', '.join(self.known) or 'none'}")


class InvalidGenotypeError(NasCoreError):
    """An architecture that is malformed or lies outside its space."""


class InvalidSettingsError(NasCoreError):
    """Settings that do not fit the form of the thing they are for."""


class SettingError(InvalidSettingsError):
    """One setting that does not go with the others."""

    def __init__(self, setting: str, got: object, expected: str) -> None:
        self.setting, self.got, self.expected = setting, got, expected
        super().__init__(f"{setting}: got {got!r}; expected {expected}")


class BoundsError(InvalidSettingsError):
    """Bounds that no network of a space holds."""


class IncompatibleSpaceError(NasCoreError):
    """An algorithm was given a space that cannot do what the algorithm needs."""


class CheckpointError(NasCoreError):
    """A checkpoint that cannot be read or does not belong to this search."""


class DatasetMissingError(NasCoreError):
    """The files of a data set are not where they were looked for."""


class DatasetError(NasCoreError):
    """The files of a data set are there, but not what they should be."""


class PluginError(NasCoreError):
    """A user's plug-in that cannot be used."""


class ObjectiveError(NasCoreError):
    """An objective that raised something, or gave what is no value of it."""


class TableError(NasCoreError):
    """A table of values that is malformed, or has not what is asked of it."""


class MissingRowError(TableError):
    """A table without a row for an architecture."""


class ProfileError(NasCoreError):
    """A device profile that is malformed, or that cannot be measured."""


class MissingPartError(NasCoreError):
    """A network has parts that a device profile does not know: nothing is predicted for it."""

    def __init__(self, device: str, missing: Sequence[str], quantity: str) -> None:
        self.device, self.missing = device, list(missing)
        listed = "; ".join(self.missing[:LISTED_PARTS]) + ("; ..." if len(self.missing) > LISTED_PARTS else "")
        super().__init__(
            f"the profile of device '{device}' has no {quantity} of {len(self.missing)} parts of this network: "
            f"{listed}; measure these sizes as well ('skyline device profile'), or add rows to its JSON"
        )


class EnergyError(NasCoreError):
    """Energy that cannot be measured here."""


class DivergedError(NasCoreError):
    """Training produced a loss that is not finite."""


class DeviceError(NasCoreError):
    """A device that is not here, or that cannot do what is asked of it."""


class ExportError(NasCoreError):
    """A network that cannot be written in a format, or a file that does not give back what the network gives."""


class MissingExtraError(ExportError):
    """A format whose libraries are not installed here."""

    def __init__(self, name: str, missing: Iterable[str], extra: str) -> None:
        self.extra = extra
        super().__init__(
            f"the format '{name}' needs {', '.join(missing)}, which is not installed here; "
            f"install the extra '{extra}' where networks are exported: pip install 'skyline-nas[{extra}]'"
        )


class NoRoomError(NasCoreError):
    """A step that does not fit into the memory of its device."""

    def __init__(self, batch: int, pieces: int, where: str) -> None:
        self.batch, self.pieces, self.where = batch, pieces, where
        how = f", in {pieces} pieces of {self.piece(pieces)}," if pieces > 1 else ""
        super().__init__(
            f"out of memory: a step of {batch} images{how} does not fit into {where}; "
            "a smaller batch, fewer channels or cells, or a device with more memory would do"
        )

    @property
    def can_be_halved(self) -> bool:
        """Whether the same step in two pieces is worth a try: once, and with two images in each."""
        return self.pieces == 1 and self.batch >= 4

    @property
    def warning(self) -> str:
        """What to tell when it is tried."""
        return (
            f"a step of {self.batch} images does not fit into {self.where}; it is taken in micro-batches of "
            f"{self.piece(2)}, whose gradients are summed. Batch norms see fewer images, so that values differ a "
            "little; they carry 'micro_batch'"
        )

    def piece(self, pieces: int) -> int:
        """Images of the largest piece."""
        return -(-self.batch // pieces)
