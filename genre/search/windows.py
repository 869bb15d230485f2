"""Which song is this snippet from, by the vectors of its windows: nearest windows in the store vote for a place.

Every window that is near one of the snippet's votes for the place in its song where the snippet would begin; true ones
agree. At the places with most votes the whole sequence of windows is compared, at several playing speeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import SearchError
from genre.search import identify, network
from genre.search.landmark_index import MAX_SNIPPET_S, Song
from genre.search.network import Network
from genre.search.settings import IndexSettings
from genre.search.store import Neighbour, VectorStore

KIND = "fingerprints"  # first part of the collection's name
MANIFEST = Path("vectors") / "fingerprints.json"  # of the vectors in the store
MADE_BY = "python -m stages.index_network"
TOP_K = 20  # windows that are searched for each of the snippet's
ASK_EVERY_S = 0.5  # between the windows of the snippet that are searched for; all are compared afterwards
N_PLACES = 12  # with most votes, compared in full
FLOOR = 0.3  # similarity that a vote is counted from
SPEED_STEP = 0.01  # of the comparison
LEAST_SHARE = 0.5  # of the snippet's windows that must lie in the song
FULL_SHARE = 0.7  # that give a song the full mean; of fewer, the others count as not similar at all

# From evidence to score: where right answers and false ones are equally frequent, and how fast that changes, as
# `python -m benchmarks.identify --engine network --fit` shows.
CENTRE, SPREAD = 0.70, 0.07

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Match:
    """A song and where the snippet lies in it."""

    song: Song
    offset_s: float  # of the snippet's start in the song; negative if it starts before the song does
    similarity: float  # cosine, averaged over the windows
    evidence: float  # similarity above the network's background, times the root of the seconds compared

    @property
    def score(self) -> float:
        """Probability that the song is the right one, 0 to 1, if half of all snippets are of indexed songs."""
        return float(1 / (1 + np.exp(-np.clip((self.evidence - CENTRE) / SPREAD, -50, 50))))


def open_store(settings: IndexSettings, its_network: Network) -> VectorStore:
    """Return the store of the vectors that this network makes; `create` or `open` it."""
    return VectorStore(
        settings,
        kind=KIND,
        fingerprint=its_network.card.fingerprint,
        dimension=its_network.card.dimension,
        made_by=MADE_BY,
    )


def n_vectors(root: Path = Path()) -> int:
    """Return how many vectors `index_network` has put into the store.

    Raises
    ------
    SearchError
        If the file that says so is missing or damaged.
    """
    path = root / MANIFEST
    try:
        return int(files.read_json(path)["vectors"])
    except FileNotFoundError:
        raise SearchError(f"{path} is not there: run `{MADE_BY}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} is damaged ({error}): run `{MADE_BY}`") from error


def recognise(
    samples: Vectors,
    its_network: Network,
    store: VectorStore,
    *,
    max_speed_change: float = identify.MAX_SPEED_CHANGE,
    without: Collection[str] = (),
) -> list[Match]:
    """Return the songs that a snippet may be from, the best first, each once.

    Parameters
    ----------
    samples : npt.NDArray[np.float32] [shape=(n,)]
        Mono at `network.SAMPLE_RATE`; what is beyond `fingerprints.MAX_SNIPPET_S` does not count.
    its_network : Network
    store : VectorStore
        Opened, with vectors of this network.
    max_speed_change : float
        Share by which the snippet may be faster or slower.
    without : collection of str
        SHA-256 of songs that do not count, as if they were not in the store.
    """
    samples = samples[: round(MAX_SNIPPET_S * network.SAMPLE_RATE)]
    if not np.any(samples):  # silence is of no song
        return []
    asked = its_network.embed(samples)
    every = max(1, round(ASK_EVERY_S * network.FRAMES_PER_S / its_network.card.hop_frames))
    found = store.search(asked[::every], TOP_K, without=without)
    songs = {
        hit.window.song_sha256: Song(hit.window.song_sha256, hit.window.song, hit.window.genre)
        for hits in found
        for hit in hits
    }
    places = _most_voted(found, every)
    best = _compared(asked, places, store, max_speed_change)
    length = float(np.sqrt(its_network.seconds(len(asked))))  # what many windows agree on is chance less often
    return [
        Match(songs[sha256], its_network.seconds(1) * place, value, length * (value - its_network.card.background))
        for sha256, (value, place) in sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
    ]


def _most_voted(found: Sequence[Sequence[Neighbour]], every: int) -> list[tuple[str, int]]:
    """Return songs with the number of the window where the snippet would begin, most votes first."""
    votes: defaultdict[tuple[str, int], float] = defaultdict(float)
    for i, hits in enumerate(found):
        for hit in hits:
            votes[hit.window.song_sha256, hit.window.number - i * every] += max(0.0, hit.similarity - FLOOR)
    together = {
        (sha256, place): count + (votes.get((sha256, place - 1), 0.0) + votes.get((sha256, place + 1), 0.0)) / 2
        for (sha256, place), count in votes.items()
    }
    return sorted(together, key=lambda key: (-together[key], key))[:N_PLACES]


def _compared(
    asked: Vectors, places: Iterable[tuple[str, int]], store: VectorStore, max_speed_change: float
) -> dict[str, tuple[float, float]]:
    """Return the mean similarity at each song's best place, and that place: the number of a window, or between two."""
    begins: defaultdict[str, set[int]] = defaultdict(set)
    for sha256, place in places:
        begins[sha256].update((place - 1, place, place + 1))
    reach = len(asked) + int(np.ceil(len(asked) * max_speed_change)) + 1
    spans = {(sha256, begin + k) for sha256, of_song in begins.items() for begin in of_song for k in range(-1, reach)}
    vectors = store.vectors(sorted(spans))
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for sha256, number in sorted(vectors):
        numbers[sha256].append(number)
    found = {}
    for sha256, of_song in begins.items():
        if numbers[sha256]:
            similarity = asked @ np.stack([vectors[sha256, number] for number in numbers[sha256]]).T
            found[sha256] = _best_place(_Compared(similarity, np.array(numbers[sha256])), of_song, max_speed_change)
    return found


@dataclass(frozen=True, slots=True)
class _Compared:
    """How similar the windows of a snippet are to those of a song."""

    similarity: Vectors  # shape (windows of the snippet, windows of the song)
    numbers: npt.NDArray[np.int64]  # of the song's windows, ascending

    def along(self, begin: int, speed: float) -> float:
        """Return the mean similarity if the snippet begins at the window `begin` of the song."""
        steps = np.arange(len(self.similarity))
        wanted = begin + np.rint(steps * speed).astype(np.int64)
        rows = np.minimum(np.searchsorted(self.numbers, wanted), len(self.numbers) - 1)
        there = self.numbers[rows] == wanted
        if there.sum() < LEAST_SHARE * len(steps):
            return 0.0
        return float(self.similarity[steps[there], rows[there]].sum() / max(there.sum(), FULL_SHARE * len(steps)))


def _best_place(compared: _Compared, begins: Iterable[int], max_speed_change: float) -> tuple[float, float]:
    n_speeds = round(max_speed_change / SPEED_STEP)
    speeds = [1.0 + k * SPEED_STEP for k in range(-n_speeds, n_speeds + 1)]
    value, begin, speed = max((compared.along(begin, speed), begin, speed) for begin in begins for speed in speeds)
    before, after = (compared.along(begin + side, speed) for side in (-1, 1))
    curve = before - 2 * value + after
    between = (before - after) / (2 * curve) if curve < -1e-6 else 0.0  # the top of the parabola through the three
    return value, begin + min(max(between, -0.5), 0.5)
