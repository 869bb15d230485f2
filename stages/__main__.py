"""Run a command for the project in any folder; python -m stages NAME is the same as the installed genre NAME.

genre query song.mp3
genre --project ~/music/genres similar song.mp3

The project is that of --project, of the environment variable GENRE_PROJECT, or the working directory.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path

from genre.cli import argument_parser


def main() -> None:
    """Run the command that is named, or list all of them."""
    paths = sorted(Path(__file__).parent.glob("[!_]*.py"))
    summaries = {path.stem: path.open(encoding="utf-8").readline().strip('"\n') for path in paths}
    listed = "".join(f"  {name:<12} {summary}\n" for name, summary in summaries.items())
    parser = argument_parser(__doc__ + f"\ncommands:\n{listed}")
    parser.prog = "genre"
    parser.add_argument("--project", metavar="DIR", type=Path, help="root folder of the project")
    parser.add_argument("command", choices=summaries, metavar="NAME", help="one of the commands")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="see genre NAME --help")
    words = f"{os.environ.get('COMP_LINE', '')}|".split()  # the last one may be empty
    position = 3 if words[1:2] == ["--project"] else 1  # of the command
    if len(words) > position + 1 and words[position] in summaries:
        os.environ["_ARGCOMPLETE"] = str(position + 1)
        options = argparse.Namespace(project=None, command=words[position], arguments=[])
    else:
        options = parser.parse_args(sys.argv[1:] or ["--help"])
    if options.project:
        if not (project := options.project.expanduser()).is_dir():
            parser.error(f"--project {project}: is not a folder")
        os.environ["GENRE_PROJECT"] = str(project.absolute())
    sys.argv[1:] = options.arguments
    runpy.run_module(f"stages.{options.command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
