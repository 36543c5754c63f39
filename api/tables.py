"""Tables of values by architecture: registered, listed, shown, deleted. Nothing but the wire."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import examples, tabulation
from api.bodies import Document
from api.deps import NoQuery, PageQuery, Reading, TableName, Writing
from api.openapi import REGISTERING, answers, document_body, problems
from skyline.schemas import RegisteredTable, TablePage, TableRegistration
from store import tables
from store.errors import TableExistsError
from store.session import reading, unit_of_work

router = APIRouter(prefix="/v1/tables", tags=["catalog"])


@router.post(
    "",
    dependencies=[NoQuery],
    status_code=HTTPStatus.CREATED,
    summary="Register a table of values by architecture",
    openapi_extra=document_body(TableRegistration, examples.TABULATION),
    responses={
        **answers(examples.TABULATED, HTTPStatus.CREATED),
        200: {
            **answers(examples.TABULATED)[200],
            "model": RegisteredTable,
            "description": "The same was registered before.",
        },
        **REGISTERING,
    },
)
def register_table(document: Document, response: Response) -> RegisteredTable:
    """Reads the whole table and keeps it, or nothing of it: 422 names line, column, what came and what would do.

    Jobs then say `{name: error, table: nb201, column: c10_valid_acc}` or `{name: tabular, table: nb201, column: ...}`.
    The body may have up to `SKYLINE_MAX_TABLE_BYTES` bytes. The same again changes nothing (200). 409 where the name
    stands for something else.
    """
    wanted = tabulation.complete(document)
    with reading() as session:
        row = tables.find(session, wanted.registration.name)
    new = row is None
    if row is None:
        columns = tabulation.columns(wanted)
        with unit_of_work() as session:
            row, new = tables.add(session, wanted.registration.name, **columns)
    elif not tables.same(row, wanted.about):
        raise TableExistsError(row.name)
    if not new:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/v1/tables/{row.name}"
    return tabulation.described(row)


@router.get(
    "",
    summary="Registered tables by name",
    responses={**answers(examples.TABLES), **problems(HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def list_tables(query: Annotated[PageQuery, Query()], session: Reading) -> TablePage:
    rows, following = tables.page(session, **query.model_dump())
    return TablePage(items=[tabulation.described(row) for row in rows], next=following)


@router.get(
    "/{table_name}",
    summary="One registered table: its columns and how far they reach",
    responses={**answers(examples.TABULATED), **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def read_table_about(table_name: TableName, session: Reading) -> RegisteredTable:
    return tabulation.described(tables.get(session, table_name))


@router.delete(
    "/{table_name}",
    dependencies=[NoQuery],
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete a table",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def delete_table(table_name: TableName, session: Writing) -> None:
    """409 while jobs under way look values up in it. Values of jobs that have ended stay, and say where they are from;
    such a job can be retried when the same table is registered again.
    """
    tables.delete(session, table_name)
