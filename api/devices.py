"""Devices with a profile: uploaded, listed, deleted. Nothing but the wire."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import examples, profiles
from api.bodies import Document
from api.deps import DeviceName, NoQuery, PageQuery, Reading, Writing
from api.openapi import REGISTERING, answers, document_body, problems
from skyline.schemas import Device, DevicePage, DeviceProfile, DeviceWithProfile
from store import devices
from store.session import unit_of_work

router = APIRouter(prefix="/v1/devices", tags=["catalog"])


@router.post(
    "",
    dependencies=[NoQuery],
    status_code=HTTPStatus.CREATED,
    summary="Upload the profile of a device",
    openapi_extra=document_body(DeviceProfile, examples.PROFILE),
    responses={
        **answers(examples.DEVICE, HTTPStatus.CREATED),
        200: {
            **answers(examples.DEVICE)[200],
            "model": Device,
            "description": "The device was known; it has this profile now.",
        },
        **REGISTERING,
    },
)
def upload_profile(document: Document, response: Response) -> Device:
    """Jobs then say `{name: latency_ms, device: NAME}`, and `energy_mj` likewise. `skyline device profile` makes one of
    the machine it runs on; one written by hand has the same form.

    A device that is known already (200) has the new profile from now on. Jobs hold the profile that they were posted
    with. 422 lists every fault, and then nothing is kept; 409 where there are too many devices.
    """
    profile = profiles.read(document)
    with unit_of_work() as session:
        known = devices.find(session, profile.name) is not None
        devices.put(session, profile.name, profile.sha256, profile.to_json())
        row = devices.get(session, profile.name)
        kept = devices.profile(session, row.sha256)
    if known:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/v1/devices/{row.name}"
    return profiles.described(row, kept)


@router.get(
    "",
    summary="Devices with a profile, by name",
    responses={**answers(examples.DEVICES), **problems(HTTPStatus.UNPROCESSABLE_ENTITY)},
)
def list_devices(query: Annotated[PageQuery, Query()], session: Reading) -> DevicePage:
    """Without their tables; one device has its whole profile."""
    rows, following = devices.page(session, **query.model_dump())
    return DevicePage(items=[profiles.described(row, kept) for row, kept in rows], next=following)


@router.get(
    "/{device_name}",
    summary="One device and its profile",
    responses={
        **answers({**examples.DEVICE, "profile": examples.PROFILE}),
        **problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def read_device(device_name: DeviceName, session: Reading) -> DeviceWithProfile:
    row = devices.get(session, device_name)
    kept = devices.profile(session, row.sha256)
    return DeviceWithProfile(**profiles.described(row, kept).model_dump(), profile=kept.profile)


@router.delete(
    "/{device_name}",
    dependencies=[NoQuery],
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete the name of a device",
    responses=problems(HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def delete_device(device_name: DeviceName, session: Writing) -> None:
    """Jobs that named it, also open ones, go on with the profile that they were posted with."""
    devices.delete(session, device_name)
