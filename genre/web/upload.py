"""Receive the uploaded song of a request."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

FIELD = "audio"  # the form field of the file
MAX_FIELD_BYTES = 1 << 16  # of a form field that is not a file
COPY_BYTES = 1 << 20
MAX_NAME_LENGTH = 200  # characters
MISSING = f"the form field {FIELD} is missing: send the song as a file in it"


@dataclass(frozen=True, slots=True)
class Upload:
    """A song on disk and the name that the client gave it."""

    path: Path
    name: str

    def without_path(self, message: str) -> str:
        """Return an error message with the name of the song in place of its path on the server."""
        return message.replace(str(self.path), self.name).replace(str(self.path.parent), "")


def check_content_type(request: Request) -> None:
    """Raise HTTPException 422 (no body) or 415 (another type) if a request has no multipart form."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if not media_type and not has_body:
        raise HTTPException(422, MISSING)
    if media_type != "multipart/form-data":
        raise HTTPException(415, f"send the song as the file {FIELD} of a multipart/form-data form")


async def receive(request: Request, folder: Path, *, max_fields: int) -> Upload:
    """Store the uploaded song in a folder and return it; HTTPException 400 or 422 if there is none."""
    try:
        async with request.form(max_files=1, max_fields=max_fields, max_part_size=MAX_FIELD_BYTES) as fields:
            file = fields.get(FIELD)
            if not isinstance(file, UploadFile) or not (file.filename or file.size):
                raise HTTPException(422, MISSING)
            if not file.size:
                raise HTTPException(400, f"the file in the form field {FIELD} is empty")
            name = _plain_name(file.filename or "")
            suffix = re.search(r"\.[A-Za-z0-9]{1,8}$", name)  # ffmpeg identifies some formats by it
            upload = Upload(folder / f"upload{suffix[0] if suffix else ''}", name)
            with upload.path.open("xb") as stream:
                await asyncio.to_thread(shutil.copyfileobj, file.file, stream, COPY_BYTES)
            return upload
    except (UnicodeError, LookupError):  # unknown charset
        raise HTTPException(400, "the form is malformed") from None


def _plain_name(name: str) -> str:
    """Return the last part of a file name without unprintable characters."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(char for char in last if char.isprintable())[-MAX_NAME_LENGTH:].strip() or "upload"
