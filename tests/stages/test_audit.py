"""The audit of a small data set with a copy, a wrong file and names of any kind: table, page, exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from stages import audit, extract, index, review, split, vectorize
from tests.made import ffmpeg_run, write_params

pytestmark = pytest.mark.slow

COPY, ORIGINAL = "rock/<b>copy & co #1.mp3", "jazz/1.wav"


def test_the_table_the_page_the_exit_codes_and_the_pairs_for_split(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = copied / "dataset" / "tiny"
    ffmpeg_run("-i", songs / ORIGINAL, "-b:a", "96k", songs / COPY)
    ffmpeg_run("-f", "lavfi", "-i", "anullsrc=r=22050:cl=mono:d=5", songs / "jazz" / "silent.flac")
    (songs / "test.txt").write_text(f"{ORIGINAL}\nrock/2.wav\n")
    write_params(copied, parallel__workers=1, split__test_list="test.txt")
    for stage in (split, extract, vectorize, index):
        assert stage.main([]) == 0
    (songs / ORIGINAL).rename(copied / "moved.wav")
    assert audit.main(["--fail-on", "damaged"]) == 1
    (copied / "moved.wav").rename(songs / ORIGINAL)
    assert audit.main(["--write-duplicates", "--fail-on", "damaged"]) == 0
    assert "leak: 1 (" in capsys.readouterr().out
    with open("audit/audit.csv", newline="") as stream:
        rows = {row["finding"]: row for row in csv.DictReader(stream)}
    leak = rows["leak"]
    assert {leak["song"], leak["other_song"]} == {COPY, ORIGINAL}
    assert abs(float(leak["offset_s"])) < 0.2
    assert "landmarks agree" in leak["evidence"]
    assert leak["suggestion"].endswith(("jazz or rock", "rock or jazz"))
    assert (rows["silent"]["song"], rows["few songs"]["song"]) == ("jazz/silent.flac", "rock")
    page = Path("audit/audit.html").read_text()
    assert 'src="../dataset/tiny/rock/%3Cb%3Ecopy%20%26%20co%20%231.mp3' in page
    assert "&lt;b&gt;copy &amp; co #1.mp3" in page
    assert "<b>" not in page
    pairs = Path("corrections/tiny.duplicates.csv").read_text().splitlines()
    assert pairs == ["song,other", f"{leak['song']},{leak['other_song']}"]
    assert review.main(["--list"]) == 0
    asked = [row["song"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert (set(asked[:2]), len(asked)) == ({COPY, ORIGINAL}, 7)
    assert audit.main(["--fail-on", "leaks"]) == audit.main(["--fail-on", "damaged,duplicates"]) == 1
    summary = json.loads(Path("audit/audit.json").read_text())
    assert summary["counts"]["leak"] == len([f for f in summary["findings"] if f["finding"] == "leak"]) == 1
    with pytest.raises(SystemExit):
        audit.main(["--fail-on", "leek"])
