"""The builder of environments installs into the environment that it makes, and nowhere else."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
import time
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


def make_spec(root: Path) -> Any:
    return {"root": str(root), "key": "key"}


def make_env(spec: Any, name: str, seconds_old: float = 0) -> _provision.Record:
    """A directory that passes for an environment, and its record."""
    env = Path(spec["root"]) / "envs" / name
    python = _provision.interpreter_of(env)
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (env / _provision.OWNER_FILE).write_text("{}")
    then = time.time() - seconds_old
    os.utime(env, (then, then))
    return {
        "schema": _provision.SCHEMA,
        "key": spec["key"],
        "root": spec["root"],
        "name": name,
        "codec": True,
    }


def environments(spec: Any) -> list[str]:
    return sorted(path.name for path in (Path(spec["root"]) / "envs").iterdir())


def records(spec: Any) -> list[str]:
    return sorted(path.name for path in (Path(spec["root"]) / "ready").iterdir())


DAYS = 3 * 24 * 3600.0


def test_of_two_builders_the_first_to_publish_wins(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    first, second = make_env(spec, "first"), make_env(spec, "second")
    assert _provision.publish(spec, first) == first
    assert _provision.publish(spec, second) == first
    assert _provision.usable(spec) == first
    assert records(spec) == ["key.json"]


@pytest.mark.parametrize("stale", [b"", b"{", b'{"schema": 0}', b'{"name": "gone"}'])
def test_a_record_that_leads_nowhere_is_replaced(tmp_path: Path, stale: bytes) -> None:
    spec = make_spec(tmp_path)
    made = make_env(spec, "made")
    (tmp_path / "ready").mkdir()
    (tmp_path / "ready" / "key.json").write_bytes(stale)
    assert _provision.publish(spec, made) == made
    assert _provision.usable(spec) == made
    assert records(spec) == ["key.json"]


def test_a_record_that_is_not_the_one_to_be_withdrawn_stays(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    made = make_env(spec, "made")
    _provision.publish(spec, made)
    _provision.withdraw(spec, b"what was there before")
    assert _provision.usable(spec) == made
    assert records(spec) == ["key.json"]
    _provision.withdraw(spec, _provision.to_json(made))
    assert records(spec) == []
    _provision.withdraw(spec, _provision.to_json(made))


def test_a_record_that_cannot_be_put_back_still_holds_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path)
    first, second = make_env(spec, "first", DAYS), make_env(spec, "second", DAYS)
    _provision.publish(spec, first)
    rename = os.rename

    def rename_and_be_overtaken(source: Path, target: Path) -> None:
        rename(source, target)
        assert _provision.publish(spec, second) == second

    monkeypatch.setattr(os, "rename", rename_and_be_overtaken)
    _provision.withdraw(spec, b"what was there before")
    assert _provision.usable(spec) == second
    _provision.collect(spec)
    assert environments(spec) == ["first", "second"]


@pytest.mark.parametrize("error", [OSError(errno.EPERM, "no links"), AttributeError("link")])
def test_without_links_the_last_record_counts_and_no_environment_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def link(source: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(os, "link", link)
    spec = make_spec(tmp_path)
    first, second = make_env(spec, "first", DAYS), make_env(spec, "second", DAYS)
    make_env(spec, "dead", DAYS)
    assert _provision.publish(spec, first) == first
    assert _provision.publish(spec, second) == second
    assert _provision.usable(spec) == second
    _provision.collect(spec)
    assert environments(spec) == ["first", "second"]


def test_a_link_that_was_made_though_an_error_says_otherwise_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.link

    def link(source: Path, target: Path) -> None:
        make(source, target)
        raise FileExistsError(errno.EEXIST, "asked twice")

    monkeypatch.setattr(os, "link", link)
    spec = make_spec(tmp_path)
    made = make_env(spec, "made")
    assert _provision.publish(spec, made) is made


def build_quickly(monkeypatch: pytest.MonkeyPatch, then: Any = None) -> None:
    """Has `build` make directories that pass for environments; `then` runs before it publishes."""

    def create(_: Any, env: Path) -> list[str]:
        python = _provision.interpreter_of(env)
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        (env / "lib" / "python3" / "site-packages").mkdir(parents=True)
        return []

    monkeypatch.setattr(_provision, "create", create)
    for step in ("install_requirements", "install_codec", "copy_runtime"):
        monkeypatch.setattr(_provision, step, lambda *_: True)
    monkeypatch.setattr(_provision, "verify", lambda *_: then() if then else None)


def test_a_build_that_was_overtaken_leaves_nothing_and_gives_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path)
    build_quickly(monkeypatch, lambda: _provision.publish(spec, make_env(spec, "faster")))
    record, built = _provision.build(spec)
    assert (record["name"], built) == ("faster", False)
    assert environments(spec) == ["faster"]


def test_an_environment_that_is_published_stays_when_its_builder_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path)
    build_quickly(monkeypatch)

    def end(*_: Any) -> bool:
        raise SystemExit(143)

    monkeypatch.setattr(_provision, "check_intact", end)
    with pytest.raises(SystemExit):
        _provision.build(spec)
    record = _provision.usable(spec)
    assert record is not None
    assert environments(spec) == [record["name"]]


def test_a_strict_install_does_not_ask_for_the_codec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lib" / "python3" / "site-packages").mkdir(parents=True)
    monkeypatch.setattr(_provision, "install", lambda *_: pytest.fail("an installer was run"))
    spec: Any = {"strict": True, "offline": False, "wheels": None}
    assert not _provision.install_codec(spec, tmp_path, [])
    [event] = map(json.loads, capsys.readouterr().out.splitlines())
    assert event["event"] == "warning"
    assert "msgspec is not among the requirements with hashes" in event["message"]
