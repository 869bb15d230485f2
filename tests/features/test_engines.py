"""Choice of the engine; the files that the built-in engine and sonic-annotator write."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from genre import files
from genre.audio import chunks
from genre.errors import EngineError
from genre.features import vamp_engine
from genre.features.engines import ENGINES, choose
from genre.features.extraction import Job
from genre.features.transforms import TRANSFORMS
from tests.made import GOLDEN, make_song, touch

SONIC_ANNOTATOR, VAMP, NUMPY = ENGINES.values()

CC = shutil.which("cc")

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

# Stand-in for the package vamp, with both plugins: rows of zeros, and a crash on full-scale signals.
VAMPYHOST = """
import os, signal
import numpy as np

ADAPT_NONE = 0

class Plugin:
    info = {"pluginVersion": 1}
    def initialise(self, *sizes): pass
    def get_output(self, name): return {"output_index": name}
    def process_block(self, spectrum, time):
        if spectrum.max() > 400:
            os.kill(os.getpid(), signal.SIGFPE)
        columns = {"coefficients": 20, "peaks": 7, "valleys": 7}
        return {name: [{"values": np.zeros(count, np.float32)}] for name, count in columns.items()}

def load_plugin(name, rate, flags): return Plugin()
def frame_to_realtime(frame, rate): return frame / rate
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an empty folder first on PATH, and another on VAMP_PATH; return the latter."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("VAMP_PATH", str(tmp_path / "lib"))
    monkeypatch.delenv("HOME", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "lib"


@pytest.fixture
def packs(plugins: Path) -> None:
    """Write libraries with the plugins' names."""
    touch(plugins, "bbc-vamp-plugins.so", "qm-vamp-plugins.so")


@pytest.fixture
def vamp(plugins: Path, packs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for the package vamp first on the search path."""
    files.write_text(plugins / "vamp" / "__init__.py", "")
    files.write_text(plugins / "vamp" / "vampyhost.py", VAMPYHOST)
    files.write_text(plugins / "vamp-1.dist-info" / "METADATA", "Name: vamp\nVersion: 1\n")
    monkeypatch.syspath_prepend(plugins)


@pytest.fixture
def stub(tmp_path: Path, packs: None) -> Path:
    """Put a stub of sonic-annotator on PATH; return its folder."""
    program = tmp_path / "bin" / "sonic-annotator"
    program.write_text(STUB)
    program.chmod(0o700)
    return program.parent


def _jobs(*audio: Path, out: Path) -> list[Job]:
    return [Job(path, dict.fromkeys(TRANSFORMS, out)) for path in audio]


def _written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def _golden(stem: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in GOLDEN.glob(f"{stem}_*.csv")}


@pytest.mark.parametrize("stem", sorted(path.stem for path in GOLDEN.glob("*.wav")))
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_writes_the_golden_files_of_the_real_tool(tmp_path: Path, name: str, stem: str) -> None:
    try:
        engine = choose(name)
    except EngineError as error:
        pytest.skip(str(error))
    assert engine.extract(_jobs(GOLDEN / f"{stem}.wav", out=tmp_path)) == {}
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
    assert NUMPY.extract(list(jobs.values())) == {}
    equal = [
        files.sha256(jobs[row["file"]].targets[list(TRANSFORMS).index(row["feature"])]) == row["sha256"] for row in rows
    ]
    assert len(equal) == 333
    assert sum(equal) >= 332  # one valley differs by the rounding of the float64 FFT


def test_other_formats_are_read_at_their_own_rate(tmp_path: Path) -> None:
    outputs = []
    for name, channels in (("wav/a.wav", 1), ("flac/a.flac", 1), ("stereo/a.flac", 2)):
        path = make_song(tmp_path / name, sample_rate=44_100, channels=channels)
        out = tmp_path / "out" / path.parent.name
        assert NUMPY.extract(_jobs(path, out=out)) == {}
        outputs.append(_written(out))
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.parametrize(
    ("fixture", "name"), [("stub", "sonic-annotator"), ("vamp", "vamp"), ("packs", "numpy"), ("plugins", "numpy")]
)
def test_auto_is_the_first_engine_that_can_be_used(request: pytest.FixtureRequest, fixture: str, name: str) -> None:
    request.getfixturevalue(fixture)
    assert choose("auto").name == name


def test_what_is_missing_is_reported_with_what_to_do(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vamp", None)
    packs = "qm-vamp-plugins, bbc-vamp-plugins not found"
    with pytest.raises(EngineError, match=f"here: sonic-annotator, {packs}; install sonic-annotator and the Vamp"):
        choose("sonic-annotator")
    with pytest.raises(EngineError, match=f"here: vamp, {packs}; `pip install vamp` .* install the Vamp plugin packs"):
        choose("vamp")
    with pytest.raises(EngineError, match="cannot be used: import of vamp halted"):
        next(vamp_engine.compute_blocks([np.zeros(1, np.float32)], 44_100))


@pytest.mark.skipif(CC is None, reason="no C compiler to make a library that crashes")
def test_a_plugin_library_that_cannot_be_loaded_or_crashes_is_named(plugins: Path, packs: None) -> None:
    pytest.importorskip("vamp", reason="the package vamp is not installed")
    with pytest.raises(EngineError, match=rf"prints no version of qm-vamp-plugins:qm-mfcc .* {plugins}/qm-vamp"):
        choose("vamp")
    source = "#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }\n"
    command = [str(CC), "-shared", "-fPIC", "-x", "c", "-", "-o", str(plugins / "qm-vamp-plugins.so")]
    subprocess.run(command, input=source, text=True, check=True)
    with pytest.raises(EngineError, match=r"SIGABRT: running qm-vamp-plugins"):
        choose("vamp")


def test_the_tool_gets_all_transforms_in_one_run_and_mono_files_of_one_rate_from_any_temporary_folder(
    tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a#b?c").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a#b?c"))
    audio = [
        make_song(tmp_path / "one" / "a.wav"),
        make_song(tmp_path / "two" / "a#1.wav"),
        make_song(tmp_path / "c.wav", sample_rate=44_100),
        make_song(tmp_path / "d.flac", channels=2),
    ]
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(audio[1], "two/a#1.wav")
    audio[1] = tmp_path / "archive.zip" / "two" / "a#1.wav"
    jobs = [Job(path, dict.fromkeys(TRANSFORMS, tmp_path / "out" / str(i))) for i, path in enumerate(audio)]
    assert SONIC_ANNOTATOR.extract(jobs) == {}
    runs = [line for line in (stub / "calls.jsonl").read_text().splitlines() if '"-d"' in line]
    assert len(runs) == 2  # one per sample rate
    assert all(run.count('"-d"') == 3 and "#" not in run for run in runs)
    assert sorted(run.count(".wav") for run in runs) == [1, 3]
    for i, path in enumerate(audio):
        assert sorted(_written(tmp_path / "out" / str(i))) == sorted(t.csv_name(path.stem) for t in TRANSFORMS.values())


def test_a_csv_that_the_tool_did_not_write_is_an_error_of_that_file(tmp_path: Path, stub: Path) -> None:
    good, short = make_song(tmp_path / "good.wav"), make_song(tmp_path / "short.wav", seconds=1.0)
    failures = SONIC_ANNOTATOR.extract(_jobs(good, short, out=tmp_path / "out"))
    assert list(failures) == [short]
    reason = "sonic-annotator wrote no mfcc_coefficients (exit status 0: ERROR: Failed to open file: short.wav)"
    assert str(failures[short]) == f"{short}: {reason}"
    assert len(_written(tmp_path / "out")) == 3


def test_the_versions_are_those_that_the_tool_prints(stub: Path, vamp: None) -> None:
    plugins = {"qm-vamp-plugins:qm-mfcc": "3", "bbc-vamp-plugins:bbc-spectral-contrast": "1"}
    assert SONIC_ANNOTATOR.versions() == {"sonic-annotator": "1.6", **plugins}
    assert VAMP.versions() == {"vamp": "1", "numpy": np.__version__, **dict.fromkeys(plugins, "1")}


def test_a_tool_without_plugins_or_that_cannot_start_is_reported_in_its_own_words(tmp_path: Path, stub: Path) -> None:
    (stub / "no-plugins").touch()
    with pytest.raises(EngineError, match=r"Failed to load plugin .* install"):
        SONIC_ANNOTATOR.extract(_jobs(GOLDEN / "mix_22k.wav", out=tmp_path / "out"))
    (stub / "broken").touch()
    with pytest.raises(
        EngineError, match=r"prints no version of .* \(exit status 1: .*shared libraries: libQt5Core\.so"
    ):
        choose("sonic-annotator")


@pytest.mark.parametrize(("engine", "signal"), [("sonic-annotator", "SIGABRT"), ("vamp", "SIGFPE")])
def test_a_crash_costs_one_file(tmp_path: Path, stub: Path, vamp: None, engine: str, signal: str) -> None:
    loud = np.full(60_000, 32_767, np.int16)
    loud[-3:] = np.frombuffer(b"CRASH!", np.int16)
    chunks.write(tmp_path / "loud.wav", loud, sample_rate=22_050)
    goods = [GOLDEN / f"{stem}.wav" for stem in ("mix_22k", "noise_22k", "sweep_22k")]
    failures = choose(engine).extract(_jobs(goods[0], tmp_path / "loud.wav", *goods[1:], out=tmp_path / "out"))
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
    failures = choose(engine).extract(_jobs(*paths, out=tmp_path / "out"))
    assert sorted(path.name for path in failures) == sorted(bad)
    for path, error in failures.items():
        assert str(error).startswith(f"{path}: ")
        assert bad[path.name][1] in str(error)
        assert str(error).count(path.name) == 1
    assert len(_written(tmp_path / "out")) == 9
