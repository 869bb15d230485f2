"""Name the indexed songs most similar to a song, and the genre that they vote for.

python -m stages.similar song.mp3
python -m stages.similar --top 5 --format jsonl albums/
python -m stages.similar --together --m3u playlist.m3u8 a.mp3 b.mp3 c.mp3
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from genre import files
from genre.cli import Answer, add_song_options, answer_all, argument_parser, integer, run_command
from genre.project import Project

COLUMNS = ("file", "genre", "weighted_genre", "score", "similar_genre", "similar_song", "similar_path")  # of csv


def main(argv: Sequence[str] | None = None) -> int:
    """Answer for every song; return 1 if any file could not be read."""
    parser = argument_parser(__doc__)
    add_song_options(parser, "SONG")
    parser.add_argument("--top", type=integer(1, 1000), default=10, metavar="N", help="songs to name (default: 10)")
    parser.add_argument("--together", action="store_true", help="one answer for all songs, ranked by mean score")
    parser.add_argument("--m3u", type=Path, metavar="FILE", help="also write a playlist of the similar songs")
    arguments = parser.parse_args(argv)
    if arguments.m3u:
        files.check_output(arguments.m3u, [".m3u", ".m3u8"])
        if arguments.models and Path(arguments.models).is_file():
            parser.error("--m3u needs the songs of the index, which a package does not have")
    playlist: list[str] = []

    def add(answer: Answer) -> None:
        playlist.extend(song["path"] for song in answer["songs"] if song["path"] and song["score"] > 0)

    excerpt = {name: getattr(arguments, name) for name in ("top", "start", "duration")}
    options = {"together": arguments.together, "afterwards": add}
    with Project(arguments.models) as project:
        _ = project.neighbours  # an error of the index is not one of a song
        answer = functools.partial(project.similar, **excerpt)
        status = answer_all(arguments.songs, answer, _text, arguments.format, COLUMNS, _rows, **options)
    if arguments.m3u and (playlist or not status):
        songs = (Path(path).absolute() for path in dict.fromkeys(playlist))
        files.write_text(arguments.m3u, "#EXTM3U\n" + "".join(f"#EXTINF:-1,{song.stem}\n{song}\n" for song in songs))
    return status


def _text(answer: Answer) -> str:
    songs = [song for song in answer["songs"] if song["score"] > 0]
    names = [f"{song['genre']}/{song['song']}" for song in songs]
    width = max(map(len, names), default=0)
    lines = [answer["file"]]
    if songs:
        lines.append("  score  song (score: mean cosine similarity of the chunks, at most 1)")
    lines += (
        f"  {s['score']:.3f}  {n:<{width}}  {s['path'] or ''}".rstrip() for s, n in zip(songs, names, strict=True)
    )
    if not answer["votes"]:
        return "\n".join([*lines, "genre: unknown (no other song is indexed)"])
    n_chunks = sum(answer["votes"].values())
    chunks = f"{answer['votes'][answer['genre']]} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    lines.append(f"genre of most neighbours: {answer['genre']} ({chunks})")
    return "\n".join([*lines, f"genre of the neighbours weighted by similarity: {answer['weighted_genre']}"])


def _rows(answer: Answer) -> Iterator[Sequence[object]]:
    """Yield a row per similar song."""
    for song in answer["songs"]:
        genres = (answer["genre"], answer["weighted_genre"])
        yield [answer["file"], *genres, song["score"], song["genre"], song["song"], song["path"]]


if __name__ == "__main__":
    run_command(main)
