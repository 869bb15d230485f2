"""What happens with a song that is dropped on the page: status, answer, the song it is and songs like it, in turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from genre.errors import AudioError, GenreError
from genre.evaluation import plots
from genre.web import page_parts
from genre.web.contract import Asked
from genre.web.page_songs import Library

N_NEAR = 8  # songs like it
PROGRESS_S = 0.5  # between two looks at how far it is
FORMATS = "Take a sound file: mp3, wav, flac, ogg, opus, m4a and many others are read."
LOADING_S = 60  # a song that comes while the models are loaded waits so long for them

log = logging.getLogger(__name__)

Upload = dict[str, Any]  # what the browser tells of the file that it has sent
Parts = tuple[str, str, str, str]  # HTML of status, answer, the song it is, songs like it


class Listener:
    """What happens with a song that was dropped."""

    def __init__(self, answerer: Asked, library: Library, uploads: Path, max_seconds: float) -> None:
        self.answerer, self.library = answerer, library
        self.uploads, self._max_seconds = uploads.resolve(), max_seconds
        self._pace = 0.05  # seconds of work for a second of music, until there was a song

    def empty(self) -> Parts:
        """Return the parts before there is a song."""
        genres = list(plots.colours(self.answerer.genres).items()) if self.answerer.ready else []
        return "", page_parts.render("empty", genres=genres), "", ""

    def waiting(self, upload: Upload | None) -> Parts:
        """Return the parts while a song waits for its turn."""
        return (_waiting("Waiting for its turn …"), "", "", "") if upload else self.empty()

    def listen(self, upload: Upload | None) -> Iterator[Parts]:
        """Yield status, answer, the song it is and songs like it, as they come to be known."""
        if not upload:
            yield self.empty()
            return
        verdict = known = near = ""
        try:
            path, name = self._received(upload)
            for _ in range(LOADING_S):
                if self.answerer.ready:
                    break
                yield _waiting("The models are being loaded …"), "", "", ""
                time.sleep(1)
            else:
                raise GenreError("The models are still being loaded: drop the song again later")
            yield _waiting("Decoding the song …"), "", "", ""
            wave = page_parts.waveform(path, duration=self._max_seconds)
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(self.answerer.query, path, duration=self._max_seconds)
                yield from self._progress(asked, wave.seconds)
                answer = asked.result()
            cut_short = wave.seconds > self._max_seconds - 1
            genres = self.answerer.genres
            verdict = page_parts.render_answer(answer, wave, genres, name=name, cut_short=cut_short)
            yield _waiting("Looking whether this song is known …", 0.9), verdict, "", ""
            known = self._known(path)
            yield _waiting("Looking for songs like it …", 0.95), verdict, known, ""
            near = self._near(path)
        except GenreError as error:
            verdict = _failure("This could not be answered", error, upload)
        except Exception:
            log.exception("the page failed on a song")
            text = "That is not your song's fault: the service's log says more."
            verdict = page_parts.render("error", title="Something went wrong", text=text)
        yield "", verdict, known, near

    def _progress(self, asked: Future[Any], seconds: float) -> Iterator[Parts]:
        """Yield the status until there is an answer, with the progress that the last song's pace lets expect."""
        begun, text = time.monotonic(), f"Listening to {_in_words(seconds)} of music …"
        while not asked.done():
            share = (time.monotonic() - begun) / (seconds * self._pace)
            yield _waiting(text, 0.9 * min(share, 0.98)), "", "", ""
            wait([asked], timeout=PROGRESS_S)
        self._pace = max(time.monotonic() - begun, PROGRESS_S) / seconds

    def _known(self, path: Path) -> str:
        try:
            return page_parts.render_known(self.answerer.identify(path), self.library, self.answerer.genres)
        except GenreError as error:
            return _failure("Which song this is cannot be told", error)

    def _near(self, path: Path) -> str:
        try:
            return page_parts.render_near(
                self.answerer.similar(path, top=N_NEAR, duration=self._max_seconds), self.library, self.answerer.genres
            )
        except GenreError as error:
            return _failure("Songs like it cannot be told", error)

    def is_upload(self, path: str) -> bool:
        """Return whether a path is that of an upload, and not that of another file or an address."""
        return Path(path).resolve().is_relative_to(self.uploads) and Path(path).is_file()

    def _received(self, upload: Upload) -> tuple[Path, str]:
        path = str(upload.get("path"))
        if not self.is_upload(path):
            raise GenreError("The song is not here any more: drop it again")
        return Path(path), str(upload.get("orig_name") or Path(path).name)


def _waiting(text: str, share: float | None = None) -> str:
    return page_parts.render("waiting", text=text, share=share)


def _failure(title: str, error: GenreError, upload: Upload | None = None) -> str:
    """Return an error in words, with the name that the user gave the file in place of its path."""
    text = str(error)  # it may begin with the name of a file
    text += "" if text[-1:] in ".!" else "."
    if upload:
        text = text.replace(str(upload.get("path")), str(upload.get("orig_name") or "the file"))
    return page_parts.render("error", title=title, text=text, hint=FORMATS if isinstance(error, AudioError) else "")


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
