"""Run the commands of README and docs/, those of each page in a copy of this project. Run it after `make run`.

python -m tests.commands                  every page
python -m tests.commands docs/tags.md     one page
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.made import ROOT, ffmpeg_run
from tests.test_docs import BLOCK, INLINE, PAGES

COMMAND = re.compile(r"(?:\$ )?((?:python -m \w+\.|dvc |make |genre (?!of )|git add |rm ).*)")
NOT_RUN = {  # by a pattern
    r"\[--|<data set>": "describes arguments",
    r"gtzan|https?://|tcp://|dvc pull|make (audit|lock)": "needs a network or another data set",
    r"make (fuzz|lint|run|setup|test)|tests\.(frozen|commands)": "is a step of CI",
    r"benchmarks\.|make bench|stages\.compare(?! --models merged)|--run-all": "takes many minutes",
    r"stages\.(serve|review)(?! --list)|--open": "does not end by itself (tests/web)",
    r"query -$": "reads standard input (tests/test_query.py)",
    r"tags (--undo )?albums/$|--write-tags song": "needs a model of real songs (tests/audio/test_tags.py)",
    r"--engine embeddings": "needs index.windows (tests/search/test_commands.py)",
}
PLACEHOLDERS = {"DIR": ".", "FOLDER": "albums", "NAME ...": "cache", "<name>": "$(dvc exp list --name-only | head -1)"}
SONGS = ("song.mp3", "a new song.mp3", "snippet.mp3", "albums/a.mp3", "recordings/b.mp3", "a.mp3", "b.mp3", "c.mp3")


def main() -> int:
    """Print the seconds of each command, and the output of those that fail; return 1 if one did."""
    parser = argparse.ArgumentParser(prog="python -m tests.commands", description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES, help="default: every page")
    arguments = parser.parse_args()
    failed = []
    for page in arguments.pages:
        with tempfile.TemporaryDirectory(prefix="genre-") as folder:
            _copy(project := Path(folder, "project"))
            for command in _commands(page):
                reasons = [reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command)]
                if reasons:
                    print(f"{page.name}: not run, as it {reasons[0]}: {command}", flush=True)
                    continue
                started = time.monotonic()
                result = _run(command, project)
                print(f"{page.name}: {time.monotonic() - started:.1f} s: {command}", flush=True)
                if result.returncode:
                    failed.append(f"{page.name}: {command}")
                    print(f"exit code {result.returncode}\n{result.stdout[-1000:]}{result.stderr[-1000:]}", flush=True)
    print(f"{len(failed)} commands failed", *failed, sep="\n  ")
    return bool(failed)


def _commands(page: Path) -> list[str]:
    """Return the command lines of the code blocks, and the commands with arguments in the text."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip() for block in BLOCK.finditer(text) for line in (block[1] or block[2]).splitlines()]
    n_names = {"python": 3, "genre": 2}  # words without an argument; 1 for dvc and make
    lines += [line for line in INLINE.findall(text) if len(line.split()) > n_names.get(line.split()[0], 1)]
    return list(dict.fromkeys(match[1] for line in lines if (match := COMMAND.fullmatch(line))))


def _copy(project: Path) -> None:
    """Copy this project with its results, as a git repository of its own, and songs with the names in the docs."""
    shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache"))
    settings = project / "params.yaml"  # for short experiments
    settings.write_text(re.sub(r"\bmax_steps: \d+", "max_steps: 10", settings.read_text()))
    _run("git init -q -b main && git add . && git commit -qm start", project).check_returncode()
    (project / ".venv").symlink_to(ROOT / ".venv")
    demo = project / "dataset" / "demo"
    for name in SONGS:
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(demo / "techno" / "Amber Station.mp3", project / name)
    for name in ("a.wav", "b.flac"):
        ffmpeg_run("-i", project / "song.mp3", project / name)
    for genre in ("blues", "techno"):
        shutil.copytree(demo / genre, project / "dataset" / "mymusic" / genre)


def _run(command: str, project: Path) -> subprocess.CompletedProcess[str]:
    for placeholder, word in PLACEHOLDERS.items():
        command = command.replace(placeholder, word)
    author = {f"GIT_{role}_{key}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    tools = {"PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(
        ["bash", "-c", f'genre() {{ python -m stages "$@"; }}; {command}'],
        cwd=project,
        env=os.environ | author | tools,
        input="y\n",  # the answer to the question of dvc gc
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )


if __name__ == "__main__":
    sys.exit(main())
