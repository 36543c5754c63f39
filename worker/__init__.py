"""Celery workers: claim a task, supervise one attempt in a process of its own, record what happens.

Torch is imported in that process alone, never in Celery's.
"""
