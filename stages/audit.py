"""Find copies, wrong labels and faulty files in the data set, and write audit/ with a page to look at and listen to.

python -m stages.audit
python -m stages.audit --fail-on duplicates,leaks      exit code 1 if there are any, for CI
python -m stages.audit --write-duplicates              also writes the pairs to corrections/, for split

Reads what split, vectorize and index wrote; docs/audit.md describes the findings.
"""

from __future__ import annotations

from collections.abc import Sequence

from genre import files, params
from genre.audit import duplicates, findings, labels, quality
from genre.audit.songs import AuditedSongs
from genre.cli import argument_parser, run_command
from genre.paths import Paths

FAIL_ON = {"duplicates": ("duplicate", "leak"), "leaks": ("leak",), "labels": ("label",), "damaged": ("damaged",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the audit: write audit/, print the number of findings of each kind; return 1 for those of --fail-on."""
    parser = argument_parser(__doc__)
    of_kinds = f"exit code 1 if there are findings of these kinds, with commas between them: {', '.join(FAIL_ON)}"
    parser.add_argument("--fail-on", default="", metavar="KINDS", help=of_kinds)
    to_split = "write the pairs to corrections/, where split reads them"
    parser.add_argument("--write-duplicates", action="store_true", help=to_split)
    options = parser.parse_args(argv)
    fail_on = options.fail_on.split(",") if options.fail_on else []
    if unknown := [name for name in fail_on if name not in FAIL_ON]:
        parser.error(f"argument --fail-on: {unknown[0]} must be one of {', '.join(FAIL_ON)}")
    settings, paths = params.load(), Paths()
    audited = AuditedSongs(settings, paths)
    ranked = findings.ranked([finding for part in (duplicates, quality, labels) for finding in part.find(audited)])
    counts = findings.write(paths.audit, ranked, audited.folder, len(audited.songs))
    if options.write_duplicates:
        pairs = [(f.song, f.others[0]) for f in ranked if f.finding in FAIL_ON["duplicates"]]
        files.write_table(paths.corrections(f"{settings.dataset.name}.duplicates"), ("song", "other"), pairs)
    audited.cache.trim()
    lines = [f"  {kind}: {n} ({findings.KINDS[kind]})" for kind, n in counts.items() if n]
    print("\n".join([*lines, f"audit: {len(audited.songs)} songs, {len(ranked)} findings: audit/audit.html"]))
    return int(any(counts[kind] for name in fail_on for kind in FAIL_ON[name]))


if __name__ == "__main__":
    run_command(main)
