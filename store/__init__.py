"""Rows and mailbox shared by api and worker: SQLAlchemy. No FastAPI, no Celery app, no torch."""
