"""What can go wrong in search."""

from __future__ import annotations

from stages.errors import GenreError


class SearchError(GenreError):
    """The vector store or the landmark index cannot be used as it is."""


class StoreUnreachableError(SearchError):
    """The vector store is locked by another process, or its server does not answer."""
