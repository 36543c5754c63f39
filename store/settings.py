"""Settings of the store, read from the environment (prefix ``SKYLINE_``); seconds where a name says so."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _below_data_dir(template: str) -> Any:
    """A default that lies in the data folder; ``{}`` stands for it."""
    return Field(default_factory=lambda data: template.format(data["data_dir"]), validate_default=True)


MOST_DAYS = 36_500.0
"""A hundred years: times beyond that are none to a database."""


class Settings(BaseSettings):
    """Where things lie and how patient the store is. What is not set lies in ``data_dir``."""

    model_config = SettingsConfigDict(
        env_prefix="SKYLINE_", env_ignore_empty=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    data_dir: Path = Path("~/.local/share/skyline")
    """Folder of everything that the embedded service writes."""
    database_url: str = _below_data_dir("sqlite:///{}/skyline.db")
    """``sqlite:///FILE`` or ``postgresql://user:password@host/database``."""
    broker_url: str = _below_data_dir("redis+socket://{}/broker.sock")
    """``redis://host:port/0`` or ``redis+socket:///path/of/socket``."""
    data_root: Path = _below_data_dir("{}/datasets")
    """Folder below which data sets are looked for."""
    artefact_dir: Path = _below_data_dir("{}/artefacts")
    """Folder of the networks' files."""
    artefact_url: str = ""
    """Where artefacts lie instead: ``s3://bucket/prefix``, ``gs://``, ``az://`` or ``file:///folder``."""
    checkpoint_dir: Path = _below_data_dir("{}/checkpoints")
    """Folder of what attempts go on from."""
    log_dir: Path = _below_data_dir("{}/logs")
    """Folder of what processes print."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """A task whose worker is silent for so long is given to another."""
    heartbeat_seconds: float = Field(default=2.0, gt=0)
    """How often a worker renews its lease and looks whether someone asked to stop."""
    max_attempts: int = Field(default=3, ge=1)
    """A task that dies so often is given up."""
    outage_seconds: float = Field(default=60.0, ge=0)
    """How long a running attempt waits for a database that is away before it counts as died."""
    resend_seconds: float = Field(default=30.0, gt=0)
    """A message unheard for so long is sent again, unless the broker still has it."""
    relay_seconds: float = Field(default=2.0, gt=0)
    """How often a worker sends what is unsent and looks for lost tasks."""
    keys: Literal["required", "off"] = "required"
    """Whether the API asks for a key. ``off`` is for this machine alone; `skyline serve` decides by its address."""
    requests_per_minute: int = Field(default=600, ge=0)
    """What each API key may ask for, unless its own row says otherwise; 0: no limit."""
    open_jobs: int = Field(default=100, ge=0)
    """How many jobs of each API key may be under way, unless its own row says otherwise; 0: no limit."""
    max_body_bytes: int = Field(default=2**20, ge=1024)
    """A larger request body is refused."""
    max_table_bytes: int = Field(default=2**25, ge=1024)
    """The same, of one that brings a table of values."""

    keep_exports_days: float = Field(default=30.0, ge=0, le=MOST_DAYS)
    """Days after its last use when an export that can be made again goes; 0: never."""
    keep_jobs_days: float = Field(default=0.0, ge=0, le=MOST_DAYS)
    """Days after its end when a job is deleted; 0: never."""
    artefact_quota_mb: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """MB (2^20 bytes) that artefacts may take; 0: no limit."""

    @field_validator("data_dir", "data_root", "artefact_dir", "checkpoint_dir", "log_dir", mode="after")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()


class SettingsError(ValueError):
    """Variables that cannot be what they are; the message names each, what it is and what would do."""

    def __init__(self, error: ValidationError) -> None:
        wrong = (
            f"SKYLINE_{'_'.join(map(str, fault['loc'])).upper()} is {fault['input']!r}: {fault['msg']}"
            for fault in error.errors(include_url=False)
        )
        super().__init__("; ".join(wrong))


def checked() -> Settings:
    """The settings, for a command: it ends with a message and code 2 where they cannot be."""
    try:
        return settings()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def settings() -> Settings:
    """The settings as the environment has them now; built anew only when it has changed. Raises SettingsError."""
    names = tuple(item for item in os.environ.items() if item[0].startswith("SKYLINE_") or item[0] == "HOME")
    relative = any(name.endswith(("_DIR", "_ROOT")) and not value.startswith(("/", "~")) for name, value in names)
    return _settings(names, os.getcwd() if relative else None)


@lru_cache(maxsize=8)
def _settings(environment: tuple[tuple[str, str], ...], folder: str | None) -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(error) from None
