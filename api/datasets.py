"""Data sets under names of users' own: registered, listed, deleted. Nothing but the wire."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import examples, registrations
from api.bodies import Document
from api.catalog import known
from api.deps import DatasetName, NoQuery, PageQuery, Reading, Writing
from api.openapi import REGISTERING, answers, document_body, problems
from skyline.schemas import DatasetPage, DatasetRegistration, RegisteredDataset
from store import datasets
from store.errors import DatasetExistsError
from store.session import reading, unit_of_work

router = APIRouter(prefix="/v1/datasets", tags=["catalog"])


@router.post(
    "",
    dependencies=[NoQuery],
    status_code=HTTPStatus.CREATED,
    summary="Register a data set under a name of its own",
    openapi_extra=document_body(DatasetRegistration, examples.REGISTRATION),
    responses={
        **answers(examples.DATASET, HTTPStatus.CREATED),
        200: {
            **answers(examples.DATASET)[200],
            "model": RegisteredDataset,
            "description": "The same was registered before.",
        },
        **REGISTERING,
    },
)
def register_dataset(document: Document, response: Response) -> RegisteredDataset:
    """Checks the data set as a job's is checked (names, settings, whether a worker has it) and keeps it.

    Jobs then say `dataset: {name: leaves}`. The same again changes nothing (200). 409 where the name stands for
    something else. 503 while no worker has ever registered.
    """
    with reading() as session:
        there = known(session)
        wanted = registrations.complete(document, there)
        row = datasets.find(session, wanted.name)
    if row is None:
        registrations.require_presence(wanted, there)
        with unit_of_work() as session:
            chosen = {"name": wanted.dataset.name, **wanted.dataset.settings}
            row, new = datasets.add(session, wanted.name, chosen, wanted.description)
    elif registrations.same(row, wanted, there):
        new = False
    else:
        raise DatasetExistsError(wanted.name)
    if not new:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/v1/datasets/{row.name}"
    return registrations.described(row, there)


@router.get(
    "",
    summary="Registered data sets by name",
    responses={**answers(examples.DATASETS), **problems(HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def list_datasets(query: Annotated[PageQuery, Query()], session: Reading) -> DatasetPage:
    rows, following = datasets.page(session, **query.model_dump())
    there = known(session)
    return DatasetPage(items=[registrations.described(row, there) for row in rows], next=following)


@router.get(
    "/{dataset_name}",
    summary="One registered data set and which workers have it",
    responses={**answers(examples.DATASET), **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def read_dataset(dataset_name: DatasetName, session: Reading) -> RegisteredDataset:
    """Shape of the images, classes and images by part, as live workers published them lately."""
    return registrations.described(datasets.get(session, dataset_name), known(session))


@router.delete(
    "/{dataset_name}",
    dependencies=[NoQuery],
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete the name of a data set",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def delete_dataset(dataset_name: DatasetName, session: Writing) -> None:
    """The images stay where they are. Jobs hold what the name stood for: those that named it, also open ones, go on as
    if nothing had happened.
    """
    datasets.delete(session, dataset_name)
