"""The way from rows to the broker: a transactional outbox, a nudge after the commit and a relay that makes good.

A message says only which task wakes; it may come twice or never. A task is claimed by compare-and-set, so twice is
harmless; the relay sends what is unsent and :func:`store.tasks.reap` what was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store.clock import now
from store.engine import engine
from store.models import Outbox, Task
from store.settings import settings

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

MESSAGE = "worker.run"
"""Name of the Celery task; its one argument is the id of the row."""
VISIBILITY_SECONDS = 7 * 86400
"""The broker never redelivers by itself within a job's life: the database decides."""
CONNECT_SECONDS = 1.0
REPLY_SECONDS = 2.0
BATCH = 100
"""Messages between two commits."""
STAGES = {"search": "search", "verify": "verify", "conclude": "measure"}
SHORT = "short"
"""The queue of what is done beside a job's course, in seconds and on any device."""

log = logging.getLogger(__name__)


def device_class(device: str) -> str:
    """``cuda:0`` is of class cuda."""
    return device.split(":", 1)[0]


def queue_for(kind: str, device: str) -> str:
    """The queue that carries tasks of this kind for this device or class of devices."""
    if kind not in STAGES:
        return SHORT
    return f"{STAGES[kind]}.{device_class(device)}"


def enqueue(session: Session, task: Task) -> None:
    """Owes the broker a message for the task, from this transaction's commit on."""
    session.add(Outbox(task_id=task.id, queue=task.queue, created_at=now(session)))
    session.info["owes"] = True


def owes(session: Session) -> bool:
    """Whether this session enqueued anything since last asked."""
    return bool(session.info.pop("owes", False))


def flush() -> int:
    """The nudge after a commit: sends what is unsent, or leaves it to the relay. Returns how many were sent."""
    try:
        return relay()
    except SQLAlchemyError as error:
        log.warning("messages stay in the outbox for the relay: %s", error)
        return 0


def relay() -> int:
    """Sends all unsent messages, oldest first; returns how many. A dead broker is logged, its messages stay."""
    total = 0
    while True:
        owed, sent = _relay_batch()
        total += sent
        if sent < owed or owed < BATCH:
            return total


def ping() -> bool:
    """Whether the broker answers."""
    return trouble() is None


def trouble() -> str | None:
    """Why the broker cannot be used, in words for whoever starts something that needs it; None where it answers."""
    from redis.exceptions import RedisError

    try:
        with _client() as client:
            client.ping()
    except (RedisError, OSError) as error:
        return f"the broker at {_shown_url()} does not answer: {error}"
    except ValueError:  # its text may hold a part of the password
        return f"the broker's address, {_shown_url()}, cannot be read; redis://:password@host:port/0 is wanted"
    return None


def depths() -> dict[str, int] | None:
    """Messages that wait in each queue; None when the broker does not answer."""
    from redis.exceptions import RedisError

    names = [SHORT, *(f"{stage}.{kind}" for stage in STAGES.values() for kind in ("cpu", "cuda"))]
    try:
        with _client() as client, client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.llen(name)
            return dict(zip(names, pipeline.execute(), strict=True))
    except (RedisError, OSError, ValueError):
        return None


def _relay_batch() -> tuple[int, int]:
    """(messages owed, messages sent), at most BATCH."""
    with Session(engine()) as session:
        owed = session.execute(
            select(Outbox.id, Outbox.task_id, Outbox.queue)
            .where(Outbox.sent_at.is_(None))
            .order_by(Outbox.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        ).all()
        if session.get_bind().dialect.name == "sqlite":
            session.commit()  # one lock for all writers there: not held while talking to the broker
        if not owed:
            return 0, 0
        sent = _publish([(row.task_id, row.queue) for row in owed])
        if sent:
            session.execute(
                update(Outbox)
                .where(Outbox.id.in_([row.id for row in owed[:sent]]), Outbox.sent_at.is_(None))
                .values(sent_at=now(session))
                .execution_options(synchronize_session=False)
            )
        session.commit()
        return len(owed), sent


def _publish(messages: Sequence[tuple[UUID, str]]) -> int:
    """Hands messages to the broker in order; returns how many it took before it failed."""
    if not ping():  # first, because a dead socket costs Celery's client seconds of retries
        log.warning("the broker at %s does not answer; %d messages wait for it", _shown_url(), len(messages))
        return 0
    from kombu.exceptions import KombuError
    from redis.exceptions import RedisError

    app = _celery(settings().broker_url)
    sent = 0
    try:
        # A connection of its own each time: declarations are never remembered across a broker that was emptied.
        with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
            for task_id, queue in messages:
                app.send_task(MESSAGE, args=[str(task_id)], queue=queue, producer=producer, retry=False)
                sent += 1
    except (KombuError, RedisError, OSError) as error:
        log.warning("the broker at %s failed, %d messages wait: %s", _shown_url(), len(messages) - sent, error)
    return sent


@lru_cache(maxsize=4)
def _celery(url: str) -> Celery:
    from celery import Celery

    app = Celery("skyline-outbox", broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": REPLY_SECONDS,
            "max_retries": 0,
        },
    )
    return app


def _client() -> Redis:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    url = urlsplit(settings().broker_url)
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": REPLY_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if url.scheme in ("redis+socket", "redis+unix"):
        database = int(parse_qs(url.query).get("virtual_host", ["0"])[0])
        return Redis(unix_socket_path=url.path, db=database, **options)
    return Redis.from_url(url.geturl(), **options)


def _shown_url() -> str:
    """The broker's address fit to be told: without password, however that was written, and without parameters."""
    scheme, _, rest = settings().broker_url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if rest else "not a URL"
