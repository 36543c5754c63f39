"""Seeds that depend on what is trained, never on order or worker."""

from __future__ import annotations

import hashlib


def seed_of(job_seed: int, *what: str | int) -> int:
    """A 63-bit seed from the job's seed and what it is for (an architecture's hash, a replicate, ...)."""
    text = "/".join(str(part) for part in (job_seed, *what))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
