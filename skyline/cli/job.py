"""``skyline job JOB``."""

from __future__ import annotations

from skyline.cli.options import JobArgument, Json, Key, Url


def job(job: JobArgument, json: Json = False, url: Url = None, key: Key = None) -> None:
    """Show one job: status, reason, attempts."""
    from skyline.cli.find import find_job
    from skyline.cli.output import as_json, console, emit
    from skyline.client import Client

    with Client(url, key) as client:
        answer = client.job(find_job(client, job))
    if json:
        emit(as_json(answer))
        return
    from skyline.cli.tables import job_lines

    for line in job_lines(answer):
        console().print(line)
