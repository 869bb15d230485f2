"""Choice of the engine; the files that the built-in engine and sonic-annotator write."""

from __future__ import annotations

import csv
import io
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from genre import files
from genre.audio import chunks
from genre.errors import EngineError
from genre.features import engines
from genre.features.extraction import Job, NumpyEngine
from genre.features.sonic_annotator import SonicAnnotator
from genre.features.transforms import TRANSFORMS
from tests.made import GOLDEN, MakeSong

# Stub of sonic-annotator: records its command line and writes golden CSV files, or fails as the real tool does.
STUB = f"""#!{sys.executable}
import json, os, pathlib, shutil, sys
args = sys.argv[1:]
folder = pathlib.Path(__file__).parent
with (folder / "calls.jsonl").open("a") as log:
    log.write(json.dumps(args) + "\\n")
if (folder / "broken").exists():
    sys.exit("sonic-annotator: error while loading shared libraries: libQt5Core.so.5")
elif args[0] == "-v":
    print("sonic-annotator v1.6")
elif args[0] == "-s":
    print(':transform a vamp:Transform ;\\n    vamp:step_size "1024"^^xsd:int ; ')
    print("    vamp:plugin_version", 3 * '"' + ("3" if "qm-mfcc" in args[1] else "1") + 3 * '"', "; ")
elif args[0] == "-l":
    print("\\n".join({[t.vamp_id for t in TRANSFORMS.values()]!r}))
elif "-d" in args:
    if (folder / "no-plugins").exists():
        sys.exit('ERROR: Failed to load plugin for transform "vamp:x:y:z"')
    out = pathlib.Path(args[args.index("--csv-basedir") + 1])
    for name in (a for a in args if a.endswith(".wav")):
        if set("#?") & set(name):
            continue  # a part of a URL
        if b"CRASH" in pathlib.Path(name).read_bytes():
            os.abort()
        if os.stat(name).st_size < 100_000:
            print(f"ERROR: Failed to open file: {{name}}", file=sys.stderr)
            continue
        for i, arg in enumerate(args):
            if arg == "-d":
                suffix = "_" + args[i + 1].replace(":", "_") + ".csv"
                shutil.copy({str(GOLDEN)!r} + "/mix_22k" + suffix, out / (pathlib.Path(name).stem + suffix))
"""

# Stand-in for the package vamp, with both plugins: rows of zeros, and a crash at 0 Hz and on full-scale signals.
VAMPYHOST = """
import os, signal
import numpy as np

FREQUENCY_DOMAIN, ADAPT_NONE = 1, 0

class Plugin:
    inputDomain, info = FREQUENCY_DOMAIN, {"pluginVersion": 1}
    def initialise(self, *sizes): pass
    def get_output(self, name): return {"output_index": name}
    def process_block(self, spectrum, time):
        if spectrum.max() > 400:
            os.kill(os.getpid(), signal.SIGFPE)
        columns = {"coefficients": 20, "peaks": 7, "valleys": 7}
        return {name: [{"values": np.zeros(count, np.float32)}] for name, count in columns.items()}

def load_plugin(name, rate, flags): return Plugin() if rate else os.kill(os.getpid(), signal.SIGFPE)
def frame_to_realtime(frame, rate): return frame / rate
"""


@pytest.fixture
def vamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for the package vamp first on the search path, and libraries with the plugins' names."""
    contents = {"vamp/vampyhost.py": VAMPYHOST, "vamp-1.dist-info/METADATA": "Name: vamp\nVersion: 1\n"}
    for name in (*contents, "vamp/__init__.py", "bbc-vamp-plugins.so", "qm-vamp-plugins.so"):
        files.write_text(tmp_path / "lib" / name, contents.get(name, ""))
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("VAMP_PATH", str(tmp_path / "lib"))


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
    equal = [
        files.sha256(jobs[row["file"]].targets[list(TRANSFORMS).index(row["feature"])]) == row["sha256"] for row in rows
    ]
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


@pytest.mark.parametrize(("fixture", "name"), [("stub", "sonic-annotator"), ("no_tool", "numpy")])
def test_auto_is_sonic_annotator_or_else_numpy(request: pytest.FixtureRequest, fixture: str, name: str) -> None:
    request.getfixturevalue(fixture)
    assert engines.choose("auto").name == name


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
    assert "short.wav: sonic-annotator wrote no mfcc_coefficients (ERROR: Failed to open file: short.wav)" in str(
        failures[short]
    )
    assert len(_written(tmp_path / "out")) == 3


def test_the_versions_are_those_that_the_tool_prints(stub: Path) -> None:
    plugins = {"qm-vamp-plugins:qm-mfcc": "3", "bbc-vamp-plugins:bbc-spectral-contrast": "1"}
    assert SonicAnnotator().versions() == {"sonic-annotator": "1.6", **plugins}


def test_a_tool_that_cannot_start_is_reported_in_its_own_words(stub: Path) -> None:
    (stub / "broken").touch()
    with pytest.raises(EngineError, match=r"-l fails \(exit status 1: .*loading shared libraries: libQt5Core\.so\.5"):
        engines.choose("sonic-annotator")
    with pytest.raises(EngineError, match=r"-v prints no version \(exit status 1: .*libQt5Core"):
        SonicAnnotator().versions()


def test_the_temporary_folder_may_have_signs_of_a_url(
    tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a#b?c").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a#b?c"))
    assert SonicAnnotator().extract(_jobs(GOLDEN / "mix_22k.wav", out=tmp_path / "out")) == {}
    assert _written(tmp_path / "out") == _golden("mix_22k")


@pytest.mark.parametrize(("engine", "signal"), [("sonic-annotator", "SIGABRT"), ("vamp", "SIGFPE")])
def test_a_crash_costs_one_file(tmp_path: Path, stub: Path, vamp: None, engine: str, signal: str) -> None:
    loud = np.full(60_000, 32_767, np.int16)
    loud[-3:] = np.frombuffer(b"CRASH!", np.int16)
    chunks.write(tmp_path / "loud.wav", loud, sample_rate=22_050)
    goods = [GOLDEN / f"{stem}.wav" for stem in ("mix_22k", "noise_22k", "sweep_22k")]
    failures = engines.choose(engine).extract(_jobs(goods[0], tmp_path / "loud.wav", *goods[1:], out=tmp_path / "out"))
    assert list(failures) == [tmp_path / "loud.wav"]
    assert signal in str(failures[tmp_path / "loud.wav"])
    assert len(_written(tmp_path / "out")) == 9


@pytest.mark.parametrize("engine", ["sonic-annotator", "vamp", "numpy"])
def test_damaged_files_are_refused_alike_and_the_others_are_extracted(
    tmp_path: Path, stub: Path, vamp: None, engine: str
) -> None:
    good = (GOLDEN / "mix_22k.wav").read_bytes()
    wavfile.write(nan := io.BytesIO(), 22_050, np.full(60_000, np.nan, np.float32))
    bad = {
        "0 Hz.wav": (good[:24] + bytes(8) + good[32:], "Invalid sample rate: 0"),
        "8 MHz.wav": (good[:24] + (8_000_000).to_bytes(4, "little") + good[28:], "8000000 Hz, is above"),
        "chunk too long.wav": (good[:18] + b"\x4d" + good[19:], "cannot be decoded"),
        "header.wav": (good[:44], "holds no audio"),
        "nan.wav": (nan.getvalue(), "the samples contain NaN"),
        "text.wav": (b"no audio", "cannot be decoded"),
    }
    for name, (data, _) in bad.items():
        (tmp_path / name).write_bytes(data)
    listed = good[8:36] + b"LIST" + (40).to_bytes(4, "little") + bytes(40) + good[36:]
    usable = {"odd.wav": good[:-1], "RIFF too short.wav": good[:4] + (40).to_bytes(4, "little") + listed}
    for name, data in usable.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe.wav")
    bad["pipe.wav"] = (b"", "is not a file")
    paths = [*map(tmp_path.joinpath, (*bad, *usable)), GOLDEN / "mix_22k.wav"]
    failures = engines.choose(engine).extract(_jobs(*paths, out=tmp_path / "out"))
    assert sorted(path.name for path in failures) == sorted(bad)
    for path, error in failures.items():
        assert str(error).startswith(f"{path}: ")
        assert bad[path.name][1] in str(error)
        assert str(error).count(path.name) == 1
    assert len(_written(tmp_path / "out")) == 9


def test_missing_plugins_are_an_error_of_the_engine(tmp_path: Path, stub: Path, make_song: MakeSong) -> None:
    (stub / "no-plugins").touch()
    with pytest.raises(EngineError, match=r"Failed to load plugin .* install"):
        SonicAnnotator().extract(_jobs(make_song(tmp_path / "a.wav"), out=tmp_path / "out"))


@pytest.mark.skipif(shutil.which("sonic-annotator") is None, reason="sonic-annotator is not on PATH")
@pytest.mark.parametrize("stem", sorted(path.stem for path in GOLDEN.glob("*.wav")))
def test_the_real_tool_writes_the_golden_files(tmp_path: Path, stem: str) -> None:
    assert SonicAnnotator().extract(_jobs(GOLDEN / f"{stem}.wav", out=tmp_path)) == {}
    assert _written(tmp_path) == _golden(stem)
