"""Dockerfile and compose.yaml are linted and name only files and stages that exist. No container engine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.made import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PINS = [
    dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
    for name in ("requirements.lock", "requirements-serve.lock")
]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run([hadolint, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_every_copied_file_exists_and_is_not_ignored() -> None:
    not_ignored = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for names in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in names.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists() and name in not_ignored, name


def test_both_images_report_nothing_and_run_without_root() -> None:
    base = DOCKERFILE.split("FROM base AS ")[0]
    assert "ORT_DISABLE_TELEMETRY=1" in base and "DVC_NO_ANALYTICS=1" in base
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]:
        assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["10001"], stage.splitlines()[0]


def test_the_serving_image_holds_no_tensorflow_and_the_versions_of_the_training_image() -> None:
    training, serving = PINS
    assert {"onnxruntime", "fastapi", "pymilvus"} <= set(serving)
    assert not {"tensorflow", "tensorflow-cpu", "keras", "dvc"} & set(serving)
    assert {name: version for name, version in serving.items() if training.get(name) != version} == {}


def test_compose_builds_stages_of_the_dockerfile_and_publishes_the_proxy_on_this_machine_only() -> None:
    targets = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    for name, service in yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].items():
        if "build" in service:
            assert service["build"]["target"] in targets, name
        else:
            assert re.fullmatch(r"[\w./-]+:v?[\d.]+", service["image"]), name  # pinned
        assert service.get("ports", []) == (["127.0.0.1:5000:8080"] if name == "proxy" else []), name
