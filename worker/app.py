"""The Celery application: one task that carries a row's id. State is in SQL; a message only wakes a worker.

Settings follow what was measured on this stack (docs/decisions): acknowledge late, never count on the broker for
recovery, and keep its visibility timeout far above the longest task.
"""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from celery import Celery
from celery.signals import (
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from store.settings import settings
from worker.control import die_with
from worker.identity import Identity
from worker.keeper import Keeper
from worker.supervise import supervise
from worker.template import Reserve

WEEK = 7 * 86_400

app = Celery("skyline")
app.conf.update(
    broker_url=settings().broker_url,
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": WEEK,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "retry_on_timeout": True,
    },
    visibility_timeout=WEEK,
)

_keeper = Keeper()
_reserve = Reserve()
"""Of a pool process."""


@app.task(name="worker.run")
def run(task_id: str) -> None:
    """Supervises one attempt of a task, if it is still to be had."""
    supervise(UUID(task_id), Identity(), _reserve)


@worker_process_init.connect
def _in_the_pool(**_: Any) -> None:
    """A worker that is killed takes its pool process along, and that the attempt: nobody supervises unseen."""
    die_with(os.getppid())
    _reserve.fill()


@worker_process_shutdown.connect
def _out_of_the_pool(**_: Any) -> None:
    _reserve.empty()


@worker_ready.connect
def _ready(**_: Any) -> None:
    _keeper.start()


@worker_shutting_down.connect
def _draining(**_: Any) -> None:
    """A warm shutdown waits for the running task: its supervisor sees the flag and puts the task back."""
    _keeper.drain()


@worker_shutdown.connect
def _gone(**_: Any) -> None:
    _keeper.stop()
