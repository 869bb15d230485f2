"""Songs whose label or content does not fit, and genres that cannot be told apart.

All scores of a song are by models that were not trained on it (out-of-fold predictions).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import median_abs_deviation

from genre import files
from genre.audit.findings import Finding
from genre.audit.songs import AuditedSongs
from genre.evaluation import comparison, metrics, recording
from genre.models import baselines, calibration, rejection

MODELS = ("stats_svm", "musicnn_svm", "musicnn_logistic")  # those whose embedding is there
MAX_QUALITY = 0.4  # normalised margin below which a label is suspect: another genre is more probable by 0.2
MIN_DISTANCE = 3.0  # of an outlier from the median song, in standard deviations estimated by the median deviation
MIN_SONGS = 10  # of a genre
MIN_CONFUSED = 0.25  # share of the songs of two genres that are taken for the other one
PROPERTIES = ("level", "peak", "bandwidth in Hz", "duration in s", "bytes per s")  # of `recording.properties`
MIN_F1 = 0.6  # of a genre that the recording gives away


def find(audited: AuditedSongs) -> Iterator[Finding]:
    """Yield the findings about labels, outliers and genres, and write predictions.csv with the columns of `by_song`.

    If a genre has no two songs or groups, there are no predictions, and only small genres are found.
    """
    data = audited.data
    counts = Counter(dict(zip(data.songs, data.labels.tolist(), strict=True)).values())
    for label, genre in enumerate(data.genres):
        if (count := counts[label]) < MIN_SONGS:
            yield Finding(genre, "few songs", f"{count} songs", "add songs, or merge genres", -count)
    options = audited.settings.compare
    groups = set(zip(data.labels.tolist(), data.groups, strict=True))
    n_folds = min(options.folds, *Counter(label for label, _ in groups).values())
    path, names = audited.paths.audit / "predictions.csv", dict(enumerate(data.genres))
    if n_folds < 2:
        files.write_text(path, "song\n")
        return
    folds = comparison.folds(data.labels, data.groups, n_folds=n_folds, n_repeats=1, seed=options.seed)
    predictions = predict(audited, folds)
    table = predictions.replace({"actual": names, "predicted": names}).rename(columns=names)
    files.write_text(path, table.to_csv(float_format="%.4f", lineterminator="\n"))
    yield from suspects(predictions, audited)
    yield from outliers(audited)
    yield from _confused(predictions, data.genres)
    yield from _given_away(audited, folds)


def predict(audited: AuditedSongs, folds: Sequence[comparison.Fold]) -> pd.DataFrame:
    """Return the calibrated mean of the out-of-fold predictions of `MODELS`, as `metrics.by_song` returns it."""
    data, names = audited.data, {model: baselines.embedding_name(model, audited.settings.musicnn) for model in MODELS}
    vectors = {model: audited.embeddings[name] for model, name in names.items() if name in audited.embeddings}
    means = np.zeros((len(data.labels), len(data.genres)), np.float32)
    for fold, (model, values) in itertools.product(folds, vectors.items()):
        graph = baselines.classifier(model, values[fold.train], data.labels[fold.train], len(data.genres))
        means[fold.test] += baselines.predict(graph, values[fold.test]) / len(vectors)
    fitted = calibration.fit(means, data.labels, data.songs)
    return metrics.by_song(calibration.calibrate(means, fitted), data.labels, data.songs)


def suspects(predictions: pd.DataFrame, audited: AuditedSongs) -> Iterator[Finding]:
    """Yield the songs whose label is probably wrong, with the nearest songs of the predicted and of their own genre.

    Those that confident learning counts as wrong (Northcutt et al. 2021, doi:10.1613/jair.1.12125) come first, then
    those whose label has a low normalised margin.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    labels = predictions["actual"].to_numpy()
    probabilities = predictions[list(range(len(audited.data.genres)))].to_numpy()
    qualities = get_label_quality_scores(labels, probabilities, method="normalized_margin")
    issues = find_label_issues(labels, probabilities, n_jobs=1)
    suspect = (issues | (qualities < MAX_QUALITY)) & (probabilities.argmax(axis=1) != labels)
    for i in np.flatnonzero(suspect).tolist():
        genres = (int(probabilities[i].argmax()), int(labels[i]))
        similarities = np.where(np.arange(len(labels)) == i, -2.0, audited.similarities[i])
        nearest = [int(np.where(labels == genre, similarities, -2.0).argmax()) for genre in genres]
        others = tuple(predictions.index[j] for j in nearest)
        names = [audited.data.genres[genre] for genre in genres]
        evidence = ", ".join(f"{name} {probabilities[i, genre]:.0%}" for name, genre in zip(names, genres, strict=True))
        severity = float(issues[i]) + 1 - float(qualities[i])
        yield Finding(predictions.index[i], "label", evidence, names[0], severity, others)


def outliers(audited: AuditedSongs) -> Iterator[Finding]:
    """Yield the songs that are far from every genre, by the detectors of unknown songs."""
    group_of = np.unique(audited.data.groups, return_inverse=True)[1]
    distances = rejection.held_out_distances(audited.embeddings, audited.data.labels, audited.song_of, group_of)
    deviations = median_abs_deviation(distances, axis=0, scale="normal")
    scores = ((distances - np.median(distances, axis=0)) / (deviations + 1e-9)).mean(axis=1)
    for song, score in zip(audited.songs, scores.tolist(), strict=True):
        if score > MIN_DISTANCE:
            evidence = f"{score:.1f} standard deviations farther from every genre than the median song"
            yield Finding(song, "outlier", evidence, "listen: is it music of these genres?", score)


def _confused(predictions: pd.DataFrame, genres: Sequence[str]) -> Iterator[Finding]:
    matrix = metrics.confusion_matrix([predictions], len(genres))
    counts = matrix.sum(axis=1)
    for i, j in itertools.combinations(range(len(genres)), 2):
        share = (matrix[i, j] + matrix[j, i]) / (counts[i] + counts[j])
        if share >= MIN_CONFUSED:
            each_way = [f"{matrix[a, b]} of {counts[a]} {genres[a]} songs" for a, b in ((i, j), (j, i))]
            evidence = f"{' and '.join(each_way)} are taken for the other genre"
            advice = "merge the genres, or check their labels"
            yield Finding(genres[i], "confused", evidence, advice, float(share), (genres[j],))


def _given_away(audited: AuditedSongs, folds: Sequence[comparison.Fold]) -> Iterator[Finding]:
    """Yield the genres that a classifier of the recordings' properties recognises, with the most different property."""
    data = audited.data
    values = recording.properties(audited.rows, audited.paths)
    outputs = np.zeros((len(values), len(data.genres)), np.float32)
    for fold in folds:
        outputs[fold.test] = recording.predict(values, audited.rows, fold.train, fold.test)
    scores = metrics.per_genre([metrics.by_song(outputs, data.labels, data.songs)], len(data.genres))
    for genre, score in enumerate(scores):
        if score["f1"] >= MIN_F1 and score["recall_low"] > 1 / len(data.genres):
            medians = [np.median(values[data.labels == genre], axis=0), np.median(values[data.labels != genre], axis=0)]
            most = int(np.argmax(np.abs(medians[0] - medians[1]) / (values.std(axis=0) + 1e-9)))
            evidence = f"{', '.join(PROPERTIES)} alone recognise {score['recall']:.0%} of its songs"
            evidence += f"; median {PROPERTIES[most]} {medians[0][most]:g}, of other genres {medians[1][most]:g}"
            advice = "use files of the same sources and formats for all genres"
            yield Finding(data.genres[genre], "recording", evidence, advice, score["f1"])
