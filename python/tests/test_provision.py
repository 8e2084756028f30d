"""The builder of environments installs into the environment that it makes, and nowhere else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from synapse import _provision

NAME = "synapse_test_only"


def make_wheel(folder: Path) -> None:
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{NAME}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{NAME}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_an_environment_that_lost_its_marker_is_refused_and_the_base_interpreter_stays_as_it_is(
    tmp_path: Path,
) -> None:
    make_wheel(tmp_path)
    env = tmp_path / "env"
    spec: Any = {"uv": None, "directory": str(tmp_path)}
    installer = _provision.create(spec, env)
    # What a removal of the cache in the middle of an installation can leave for a moment.
    (env / "pyvenv.cfg").unlink()
    install = [*installer, "--no-index", "--find-links", str(tmp_path), NAME]
    with pytest.raises(_provision.BuildError):
        _provision.run(install, spec)
    base = Path(sys.base_prefix) / "bin" / "python3"
    found = subprocess.run([base, "-I", "-c", f"import {NAME}"], capture_output=True)
    assert found.returncode != 0
    assert importlib.util.find_spec(NAME) is None
