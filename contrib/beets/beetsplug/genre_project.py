"""Plugin of beets: genres by a model of this project, on import and as `beet predictgenre QUERY...` (docs/tags.md)."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from beets import ui
from beets.plugins import BeetsPlugin

from genre import Project
from genre.audio import tags
from genre.errors import AudioError, GenreError


class GenreProjectPlugin(BeetsPlugin):
    """Sets `genres` of items that have none, and of an album the most frequent one of its items."""

    def __init__(self) -> None:
        super().__init__()
        self.config.add({"project": ".", "model": None, "min_confidence": 0.0, "multi": False, "names": {}})
        self.config.add({"auto": True, "overwrite": False, "synthetic": False})
        if self.config["auto"]:
            self.import_stages = [self.imported]

    def commands(self) -> list[ui.Subcommand]:
        """Return the command predictgenre."""
        command = ui.Subcommand("predictgenre", help="predict the genres of songs")
        command.func = lambda library, _, arguments: self.predict(library.items(arguments), write=ui.should_write())
        return [command]

    def imported(self, _: Any, task: Any) -> None:
        """Set the genres of an import, before beets writes tags."""
        self.predict(task.imported_items(), write=False)
        counts = Counter(genre for item in task.imported_items() for genre in item.genres)
        if task.is_album and counts:
            task.album.genres = [counts.most_common(1)[0][0]]
            task.album.store(inherit=False)

    def predict(self, items: Iterable[Any], *, write: bool) -> None:
        """Set the genres of items; none if a song is "unknown" or cannot be decoded."""
        names, multi = self.config["names"].get(dict), self.config["multi"].get(bool)
        for item in items:
            if not item.genres or self.config["overwrite"]:
                try:
                    genres = tags.genres(self._query(item.filepath), multi=multi)
                except AudioError as error:
                    self._log.warning("{}", error)
                    continue
                item.genres = [names.get(genre, genre) for genre in genres] or item.genres
                item.try_sync(write=write, move=False)

    @functools.cached_property
    def _query(self) -> Any:
        """Return the function from the path of a song to the answer of query; raise UserError."""
        try:
            project = Project(self.config["project"].as_path(), model=self.config["model"].get())
            card, _ = project.predictor.card, project.rejection  # errors before the first song
        except GenreError as error:
            raise ui.UserError(f"genre_project: {error}") from error
        if card.synthetic and not self.config["synthetic"]:
            raise ui.UserError(f"genre_project: {card.warnings[0]}")
        return functools.partial(project.query, min_confidence=self.config["min_confidence"].as_number())
