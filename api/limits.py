"""How often a key may ask: a moving window of a minute, counted in the broker, so that several API processes agree.

Where the broker does not answer each process counts for itself: a dead broker neither stops the API nor lifts limits.
"""

from __future__ import annotations

import logging
import math
import time
from functools import cache, lru_cache
from http import HTTPStatus
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from api.errors import ProblemError
from store.settings import settings

NAMESPACE = "skyline-requests"
CONNECT_SECONDS = 1.0
REPLY_SECONDS = 1.0
AWAY_SECONDS = 5.0
"""A broker that did not answer is not asked again for so long: waiting for it would slow down every request."""
SOCKETS = ("redis+socket", "redis+unix")

log = logging.getLogger(__name__)


class _Away:
    """Until when a broker is left alone, on the monotonic clock."""

    until = 0.0
    lock = Lock()


def admit(key_id: UUID, per_minute: int) -> None:
    """Counts a request of a key; 0 a minute is no limit. Raises ProblemError (429) with Retry-After."""
    if not per_minute:
        return
    item = RateLimitItemPerMinute(per_minute, namespace=NAMESPACE)
    wait = _hit(item, str(key_id))
    if wait is not None:
        seconds = max(1, math.ceil(wait))
        detail = f"this API key may ask {per_minute} times a minute; ask again in {seconds} s"
        headers = {"Retry-After": str(seconds)}
        raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests", detail, headers=headers)


def _hit(item: RateLimitItemPerMinute, who: str) -> float | None:
    """Seconds until there is room again; None where there was."""
    url = settings().broker_url
    if time.monotonic() >= _Away.until:
        try:
            return _count(_shared(url), item, who)
        except (RedisError, OSError, ValueError) as error:
            with _Away.lock:
                _Away.until = time.monotonic() + AWAY_SECONDS
            log.warning("requests are counted in this process alone, the broker fails: %s", type(error).__name__)
    return _count(_own(), item, who)


def _count(limiter: MovingWindowRateLimiter, item: RateLimitItemPerMinute, who: str) -> float | None:
    if limiter.hit(item, who):
        return None
    return limiter.get_window_stats(item, who).reset_time - time.time()


@lru_cache(maxsize=4)
def _shared(url: str) -> MovingWindowRateLimiter:
    """Raises ValueError for an address that is no Redis; the message does not hold it, as it may hold a password."""
    parsed = urlsplit(url)
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": REPLY_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if parsed.scheme in SOCKETS:
        database = parse_qs(parsed.query).get("virtual_host", ["0"])[0]
        return MovingWindowRateLimiter(RedisStorage(f"redis+unix://{parsed.path}?db={database}", **options))
    if parsed.scheme not in ("redis", "rediss"):
        raise ValueError(f"a broker of scheme '{parsed.scheme}' cannot count")
    return MovingWindowRateLimiter(RedisStorage(url, **options))


@cache
def _own() -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(MemoryStorage())
