"""Choice of the engine; the files that the built-in engine and sonic-annotator write."""

from __future__ import annotations

import csv
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from genre.errors import EngineError
from genre.features import engines
from genre.features.engine import Job
from genre.features.extraction import NumpyEngine
from genre.features.sonic_annotator import SonicAnnotator
from genre.features.transforms import TRANSFORMS
from genre.files import sha256
from tests.made import GOLDEN, MakeSong

# Stub of sonic-annotator: records its command line and writes golden CSV files, or fails as the real tool does.
STUB = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
args = sys.argv[1:]
folder = pathlib.Path(__file__).parent
with (folder / "calls.jsonl").open("a") as log:
    log.write(json.dumps(args) + "\\n")
if args[0] == "-v":
    print("sonic-annotator v1.6")
elif args[0] == "-l":
    print("\\n".join({[t.vamp_id for t in TRANSFORMS.values()]!r}))
elif "-d" in args:
    if (folder / "no-plugins").exists():
        sys.exit('ERROR: Failed to load plugin for transform "vamp:x:y:z"')
    out = pathlib.Path(args[args.index("--csv-basedir") + 1])
    for name in (a for a in args if a.endswith(".wav")):
        if os.stat(name).st_size < 100_000:
            print(f"ERROR: Failed to open file: {{name}}", file=sys.stderr)
            continue
        for i, arg in enumerate(args):
            if arg == "-d":
                suffix = "_" + args[i + 1].replace(":", "_") + ".csv"
                shutil.copy({str(GOLDEN)!r} + "/mix_22k" + suffix, out / (pathlib.Path(name).stem + suffix))
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stub of sonic-annotator first on PATH; return its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "sonic-annotator"
    program.write_text(STUB)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def no_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove sonic-annotator and the Vamp plugins from the search paths."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))


def _jobs(*audio: Path, out: Path) -> list[Job]:
    return [Job(path, dict.fromkeys(TRANSFORMS, out)) for path in audio]


def _written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def _golden(stem: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in GOLDEN.glob(f"{stem}_*.csv")}


@pytest.mark.parametrize("stem", sorted(path.stem for path in GOLDEN.glob("*.wav")))
def test_the_built_in_engine_writes_the_bytes_of_the_real_tool(tmp_path: Path, stem: str) -> None:
    assert NumpyEngine().extract(_jobs(GOLDEN / f"{stem}.wav", out=tmp_path)) == {}
    assert _written(tmp_path) == _golden(stem)
    assert len(_golden(stem)) == 3


@pytest.mark.slow
def test_the_built_in_engine_writes_the_bytes_of_the_real_tool_for_real_music(
    tmp_path: Path, shared_data: Path
) -> None:
    with (shared_data.parent / "sonic-annotator" / "gtzan_digests.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    jobs = {
        name: Job(shared_data / "gtzan" / name, {feature: tmp_path / feature for feature in TRANSFORMS})
        for name in {row["file"] for row in rows}
    }
    assert NumpyEngine().extract(list(jobs.values())) == {}
    equal = [sha256(jobs[row["file"]].target(TRANSFORMS[row["feature"]])) == row["sha256"] for row in rows]
    assert len(equal) == 333
    assert sum(equal) >= 332  # one valley differs by the rounding of the float64 FFT


def test_other_formats_are_read_at_their_own_rate(tmp_path: Path, make_song: MakeSong) -> None:
    wav = make_song(tmp_path / "wav" / "a.wav", sample_rate=44_100)
    flac = make_song(tmp_path / "flac" / "a.flac", sample_rate=44_100)
    stereo = make_song(tmp_path / "stereo" / "a.flac", sample_rate=44_100, channels=2)
    outputs = []
    for path in (wav, flac, stereo):
        out = tmp_path / "out" / path.parent.name
        assert NumpyEngine().extract(_jobs(path, out=out)) == {}
        outputs.append(_written(out))
    assert outputs[0] == outputs[1] == outputs[2]


def test_auto_prefers_sonic_annotator(stub: Path) -> None:
    assert engines.choose("auto").name == "sonic-annotator"


def test_auto_falls_back_to_numpy(no_tool: None) -> None:
    assert engines.choose("auto").name == "numpy"


def test_a_missing_tool_and_an_unknown_engine_are_reported_with_what_to_do(no_tool: None) -> None:
    with pytest.raises(EngineError, match=r"not on PATH; install sonic-annotator .* bbc-vamp-plugins"):
        engines.choose("sonic-annotator")
    with pytest.raises(EngineError, match="choose auto, sonic-annotator"):
        engines.choose("essentia")


def test_the_tool_gets_all_transforms_in_one_run_and_mono_files_of_one_rate(
    tmp_path: Path, stub: Path, make_song: MakeSong
) -> None:
    audio = [
        make_song(tmp_path / "one" / "a.wav"),
        make_song(tmp_path / "two" / "a#1.wav"),
        make_song(tmp_path / "c.wav", sample_rate=44_100),
        make_song(tmp_path / "d.flac", channels=2),
    ]
    jobs = [Job(path, dict.fromkeys(TRANSFORMS, tmp_path / "out" / str(i))) for i, path in enumerate(audio)]
    assert SonicAnnotator().extract(jobs) == {}
    runs = [line for line in (stub / "calls.jsonl").read_text().splitlines() if '"-d"' in line]
    assert len(runs) == 2  # one per sample rate
    assert all(run.count('"-d"') == 3 and "#" not in run for run in runs)
    assert sorted(run.count(".wav") for run in runs) == [1, 3]
    for i, path in enumerate(audio):
        assert sorted(_written(tmp_path / "out" / str(i))) == sorted(t.csv_name(path.stem) for t in TRANSFORMS.values())


def test_a_csv_that_the_tool_did_not_write_is_an_error_of_that_file(
    tmp_path: Path, stub: Path, make_song: MakeSong
) -> None:
    good, short = make_song(tmp_path / "good.wav"), make_song(tmp_path / "short.wav", seconds=1.0)
    failures = SonicAnnotator().extract(_jobs(good, short, out=tmp_path / "out"))
    assert list(failures) == [short]
    assert "short.wav: sonic-annotator wrote no mfcc_coefficients (ERROR: Failed to open file" in str(failures[short])
    assert len(_written(tmp_path / "out")) == 3


def test_missing_plugins_are_an_error_of_the_engine(tmp_path: Path, stub: Path, make_song: MakeSong) -> None:
    (stub / "no-plugins").touch()
    with pytest.raises(EngineError, match=r"Failed to load plugin .* install"):
        SonicAnnotator().extract(_jobs(make_song(tmp_path / "a.wav"), out=tmp_path / "out"))


@pytest.mark.skipif(shutil.which("sonic-annotator") is None, reason="sonic-annotator is not on PATH")
@pytest.mark.parametrize("stem", sorted(path.stem for path in GOLDEN.glob("*.wav")))
def test_the_real_tool_writes_the_golden_files(tmp_path: Path, stem: str) -> None:
    assert SonicAnnotator().extract(_jobs(GOLDEN / f"{stem}.wav", out=tmp_path)) == {}
    assert _written(tmp_path) == _golden(stem)
