"""Receive the uploaded song of a request."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

FIELD = "audio"  # the form field of the file
MAX_FIELD_BYTES = 1 << 16  # of a form field that is not a file
COPY_BYTES = 1 << 20
MAX_NAME_BYTES = 200  # file systems allow 255
MISSING = f"the form field {FIELD} is missing: send the song as a file in it"


def check_content_type(request: Request) -> None:
    """Raise HTTPException 422 (no body) or 415 (another type) if a request has no multipart form."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if not media_type and not has_body:
        raise HTTPException(422, MISSING)
    if media_type != "multipart/form-data":
        raise HTTPException(415, f"send the song as the file {FIELD} of a multipart/form-data form")


async def receive(request: Request, folder: Path, *, max_fields: int) -> Path:
    """Store the uploaded song in a folder, under its name, and return it; HTTPException 400 or 422 if there is none."""
    try:
        async with request.form(max_files=1, max_fields=max_fields, max_part_size=MAX_FIELD_BYTES) as fields:
            file = fields.get(FIELD)
            if not isinstance(file, UploadFile) or not (file.filename or file.size):
                raise HTTPException(422, MISSING)
            if not file.size:
                raise HTTPException(400, f"the file in the form field {FIELD} is empty")
            song = folder / _plain_name(file.filename or "")
            with song.open("xb") as stream:
                await asyncio.to_thread(shutil.copyfileobj, file.file, stream, COPY_BYTES)
            return song
    except (UnicodeError, LookupError):  # unknown charset
        raise HTTPException(400, "the form is malformed") from None


def _plain_name(name: str) -> str:
    """Return the last part of a file name without unprintable characters; it names no other folder."""
    last = "".join(char for char in re.split(r"[/\\]", name)[-1] if char.isprintable())
    return last.strip().lstrip(".").encode()[-MAX_NAME_BYTES:].decode(errors="ignore") or "upload"
