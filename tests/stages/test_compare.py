"""The comparison writes its tables, resumes where it was interrupted, and never trains on test labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from genre import files
from genre.cache import Cache
from genre.errors import ModelError, VectorError
from genre.evaluation import comparison
from genre.features import arrays
from genre.features.transforms import Settings
from genre.models import baselines
from genre.params import load
from genre.paths import Paths
from stages import compare
from tests.made import write_chunks, write_params, write_vectors

N_SONGS = 6  # of a split and genre
OPTIONS: dict[str, object] = {
    "parallel__workers": 1,
    "compare__folds": 3,
    "compare__repeats": 2,
    "compare__songs_per_genre": [2, 5],
}


@pytest.fixture
def data(project: Path) -> Path:
    """Write random vectors of two genres with different means and equal chunks, and return the project."""
    write_params(project, **OPTIONS)
    rows = write_chunks(project, N_SONGS, equal=True)  # the stress test of one is that of all
    write_vectors(project / "pickled_vectors", rows, Settings(22_050, 3.0, 1.0))
    return project


def _written(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "comparison").iterdir()}


@pytest.mark.slow
def test_the_tables_are_written_and_a_second_run_trains_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--models", "stats_svm", "knn", "ensemble"]
    write_params(data, **OPTIONS, ensemble__models=["stats_svm", "knn"])
    assert compare.main(arguments) == 0
    first = _written(data)
    tables = {f"{name}.csv" for name in "results predictions per_genre confusion_matrix curve stress".split()}
    assert set(first) == tables | set("results.json table.md song_accuracy.png report.html".split())
    results = json.loads(first["results.json"])
    assert set(results["models"]) == {"stats_svm", "knn", "ensemble", "recording"}
    assert results["songs"] == 4 * N_SONGS
    predictions = pd.read_csv(data / "comparison" / "predictions.csv")
    assert predictions.groupby(["model", "repeat"])["song"].nunique().tolist() == [4 * N_SONGS] * 8
    curve = pd.read_csv(data / "comparison" / "curve.csv")
    assert curve["songs_per_genre"].tolist() == [2] * 4 + [5] * 4 + [8] * 4  # of 12, in two of three folds
    stress = pd.read_csv(data / "comparison" / "stress.csv")
    assert stress.groupby(["model", "n_songs"]).size().to_dict() == {(m, 24): 8 for m in arguments[1:]}
    assert pd.read_csv(data / "comparison" / "results.csv", index_col="model")["song_accuracy"]["stats_svm"] > 0.8
    assert capsys.readouterr().out == first["table.md"].decode()
    monkeypatch.delattr(baselines, "train")
    assert compare.main(arguments) == 0
    assert _written(data) == first


@pytest.mark.slow
def test_other_data_or_seeds_do_not_use_the_cached_folds(data: Path) -> None:
    cache = Cache(data / ".cache", 10**9)
    sizes = [0]
    for change in ("first run", "song renamed", "other seed"):
        if change == "song renamed":
            for path, old in (("pickled_vectors/songs.json", '/song 0"'), ("chunks/index.csv", ",song 0,")):
                (data / path).write_text((data / path).read_text().replace(old, old.replace("song 0", "renamed")))
        if change == "other seed":
            write_params(data, **OPTIONS, compare__seed=1)
        assert compare.main(["--models", "knn"]) == 0
        sizes.append(len(cache.entries()))
    assert sizes == sorted(set(sizes))


def test_an_unknown_model_is_reported_with_the_choices_and_other_chunks_are_refused(data: Path) -> None:
    with pytest.raises(ModelError, match="unknown model forest; choose from mfcc"):
        compare.main(["--models", "forest"])
    write_chunks(data, N_SONGS + 1)
    with pytest.raises(VectorError, match="has other songs than the chunks"):
        compare.main(["--models", "knn"])


def test_a_fixed_split_tests_on_the_test_songs_alone(data: Path) -> None:
    write_params(data, parallel__workers=1, compare__split="fixed", compare__repeats=1)
    assert compare.main(["--models", "knn"]) == 0
    results = json.loads((data / "comparison" / "results.json").read_text())
    assert results["models"]["knn"]["n_songs"] == 2 * N_SONGS


def test_groups_are_tested_with_and_without_the_artist_filter(data: Path) -> None:
    write_params(data, **OPTIONS | {"split__group_by": "artist", "compare__songs_per_genre": []})
    path = data / "pickled_vectors" / "songs.json"
    names = json.loads(path.read_text())
    groups = {f"{key}_groups": [f"{song[:1]}{int(song[-2:]) // 6}" for song in songs] for key, songs in names.items()}
    path.write_text(json.dumps(names | groups))
    tested = compare.Setup(load(), Paths())
    vectors = tested.data
    assert len(set(vectors.groups)) == 8 < len(set(vectors.songs))
    for fold in tested.folds(vectors.groups):
        assert not {vectors.groups[row] for row in fold.train} & {vectors.groups[row] for row in fold.test}
    assert compare.main(["--models", "knn"]) == 0
    curve = pd.read_csv(data / "comparison" / "curve.csv")
    assert curve.groupby(["model", "by_song"])["n_songs"].first().to_dict() == {
        (model, by_song): 4 * N_SONGS for model in ("knn", "recording") for by_song in (False, True)
    }
    report = (data / "comparison" / "report.html").read_text()
    assert "3 folds by group" in report and "<th>folds by song</th>" in report and "Artist filter: yes" in report


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mfcc", "stats_svm"])
def test_wrong_test_labels_change_no_prediction(data: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(data, compare__models=[model])
    paths, settings = Paths(), load()
    vectors = compare.Setup(settings, paths).data
    fold = comparison.folds(vectors.labels, vectors.songs, n_folds=3, n_repeats=1, seed=0)[0]
    wrong = vectors.labels.copy()
    wrong[fold.test] = 1 - wrong[fold.test]
    probabilities = []
    for labels in (vectors.labels, wrong):
        monkeypatch.setattr(arrays, "read_all", lambda *_, labels=labels: replace(vectors, labels=labels))
        outcome = compare.train_and_predict((model, fold), settings=settings, paths=paths)
        probabilities.append(files.read_npz(outcome)["probabilities"])
    assert np.array_equal(probabilities[0], probabilities[1])
