"""What can go wrong in nas_core; every message says what came, what would do and what next."""

from __future__ import annotations

from collections.abc import Iterable


class NasCoreError(Exception):
    """Base of all errors raised on purpose by nas_core."""


class UnknownNameError(NasCoreError):
    """A name that no registered thing has."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.what, self.name, self.known = what, name, sorted(known)
        super().__init__(f"unknown {what} '{name}'; known: {', '.join(self.known) or 'none'}")


class InvalidGenotypeError(NasCoreError):
    """An architecture that is malformed or lies outside its space."""


class InvalidSettingsError(NasCoreError):
    """Settings that do not fit the form of the thing they are for."""


class IncompatibleSpaceError(NasCoreError):
    """An algorithm was given a space that cannot do what the algorithm needs."""


class CheckpointError(NasCoreError):
    """A checkpoint that cannot be read or does not belong to this search."""


class DatasetMissingError(NasCoreError):
    """The files of a data set are not where they were looked for."""


class DatasetError(NasCoreError):
    """The files of a data set are there, but not what they should be."""


class DivergedError(NasCoreError):
    """Training produced a loss that is not finite."""


class DeviceError(NasCoreError):
    """A device that is not here, or that cannot do what is asked of it."""
