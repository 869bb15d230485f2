"""Nothing leaves the machine: commands run in a network namespace whose every address is a counter of attempts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made import ROOT, write_params

COUNTING = """
import contextlib, json, socket, subprocess, sys, threading
attempts = []

def count(kind, port):
    listener = socket.socket(type=kind)
    listener.bind(("", port))
    if kind == socket.SOCK_STREAM:
        listener.listen()
    def wait():
        while True:
            attempts.append((port, str(listener.recv(512) if kind == socket.SOCK_DGRAM else listener.accept())))
    threading.Thread(target=wait, daemon=True).start()

count(socket.SOCK_DGRAM, 53)
for port in (53, 80, 443):
    count(socket.SOCK_STREAM, port)
*commands, service = [[sys.executable, *words] for words in json.loads(sys.argv[1])]
served = subprocess.Popen(service)
for command in commands:
    subprocess.run(command, check=True)
assert served.poll() is None
served.terminate()
served.wait(60)
of_commands = list(attempts)
with contextlib.suppress(OSError):
    socket.create_connection(("example.org", 443), timeout=1)
assert len(attempts) > len(of_commands), "the counter does not count"
print(json.dumps(of_commands), file=sys.stderr)
"""
NAMESPACE = ("unshare", "--map-root-user", "--net", "sh", "-c")
ROUTES = "ip link set lo up && ip route add local default dev lo"


@pytest.mark.slow
def test_no_command_looks_up_or_connects_to_another_machine(copied: Path) -> None:
    try:
        subprocess.run([*NAMESPACE, ROUTES], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine does not allow a network namespace: {getattr(error, 'stderr', '') or error}")
    write_params(copied, parallel__workers=2, compare__folds=2, compare__repeats=1)
    model = "--model stats_svm"
    commands = ["baselines knn", "compare --models stats_svm", f"query {model} dataset/tiny", f"serve {model} --port 0"]
    modules = [["-m", *f"stages.{command}".split()] for command in commands]
    imported = ["-c", "import genre, onnxruntime; print(onnxruntime.get_available_providers())"]
    (home := copied / "home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    result = subprocess.run(
        [*NAMESPACE, f'{ROUTES} && exec "$@"', "sh", sys.executable, "-c", COUNTING, json.dumps([imported, *modules])],
        cwd=copied,
        env=environment | {"PYTHONPATH": str(ROOT), "HOME": str(home), "RES_OPTIONS": "timeout:1 attempts:1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stderr.splitlines()[-1]) == []
    assert not [path for path in home.rglob("*") if "microsoft" in str(path).lower()]
