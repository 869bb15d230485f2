"""Titles, formats and chords of the demo songs."""

from __future__ import annotations

from collections import Counter

from genre.demo import styles


def test_the_first_songs_do_not_depend_on_the_number_of_songs() -> None:
    assert styles.plan(5, 30)[: len(styles.plan(5, 4))] == styles.plan(5, 4)


def test_every_style_has_the_same_formats() -> None:
    songs = styles.plan(2016, 10)
    for style in styles.STYLES:
        assert Counter(song.suffix for song in songs if song.style == style) == Counter(styles.SUFFIXES)


def test_titles_are_unique_and_contain_apostrophes_and_accents() -> None:
    titles = [song.title.casefold() for song in styles.plan(2016, 400)]
    assert len(set(titles)) == len(titles)
    assert any("'" in title for title in titles)
    assert any(not title.isascii() for title in titles)
