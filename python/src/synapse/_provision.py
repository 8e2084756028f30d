"""Builds one virtual environment and publishes it.

Runs on the base interpreter with nothing but the standard library: ``python -I _provision.py
SPEC``, where ``SPEC`` is a JSON object (see :class:`Spec`). It reports on standard output, one JSON
object per line, and always ends with a ``ready`` or a ``failed`` event, unless it is killed.

The environment is built at its final path, ``envs/<key>-<random>``, because virtual environments
cannot be moved. What makes it visible is one atomic link, ``ready/<key>.json``; until then
nothing refers to it. The lock only saves work: without it, or with it broken, two builders build
twice, the first to publish wins, and both end with its environment.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TypedDict

WINDOWS = os.name == "nt"
SCHEMA = 1  # The same as `schema` in environmentCache.ts.
CODEC = "msgspec>=0.19"
SLOWER = "the runtime uses its slower codec"
OWNER_FILE = "synapse-build.json"
OUTPUT_LINES = 30
ATTEMPTS = 3
# Seconds. A directory younger than YOUNG is never collected; one whose owner cannot be asked, for
# want of locks, is dead after a day.
YOUNG = 60.0
DEAD_AFTER = 24 * 3600.0


class Spec(TypedDict):
    """What to build."""

    root: str
    key: str
    directory: str
    requirements: list[str]
    pyproject: str | None
    runtime: str
    uv: str | None
    offline: bool
    wheels: str | None
    strict: bool


class Record(TypedDict):
    """The content of ``ready/<key>.json``."""

    schema: int
    key: str
    root: str
    name: str
    codec: bool


class BuildError(Exception):
    """The build failed in a way that the user has to hear about."""

    def __init__(self, command: list[str], exit_code: int | None, output: str) -> None:
        super().__init__(output)
        self.command = command
        self.exit_code = exit_code
        self.output = output


class Vanished(Exception):
    """The directory of the build was removed while it was being built."""


def emit(event: str, **fields: Any) -> None:
    """Write one event."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def warn(message: str) -> None:
    """Tell the user of something that does not stop the build."""
    emit("warning", message=message)


def interpreter_of(env: Path) -> Path:
    """Return the path of an environment's interpreter."""
    return env / "Scripts" / "python.exe" if WINDOWS else env / "bin" / "python"


def site_packages_of(env: Path) -> Path:
    """Return the path of an environment's ``site-packages``."""
    if WINDOWS:
        return env / "Lib" / "site-packages"
    found = sorted((env / "lib").glob("python*/site-packages"))
    if not found:
        raise Vanished(str(env))
    return found[-1]


def usable(spec: Spec) -> Record | None:
    """Return the published record if it still leads to an environment that can run."""
    root = Path(spec["root"])
    try:
        record: Record = json.loads((root / "ready" / f"{spec['key']}.json").read_text("utf-8"))
        env = root / "envs" / record["name"]
        good = record["schema"] == SCHEMA and record["root"] == str(root)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # `exists` follows links: it is false when the base interpreter is gone.
    return record if good and interpreter_of(env).exists() and (env / OWNER_FILE).exists() else None


def pointer_of(spec: Spec, token: str | None = None) -> Path:
    """Return the path of a key's record, or of another record that holds on to an environment."""
    name = spec["key"] if token is None else f"{spec['key']}.{token}"
    return Path(spec["root"]) / "ready" / f"{name}.json"


def publish(spec: Spec, record: Record) -> Record:
    """Make the environment visible, in one step and on disk, and return what is visible.

    That is another environment where somebody was faster: its processes run in it already.
    """
    pointer = pointer_of(spec)
    pointer.parent.mkdir(exist_ok=True)
    content = to_json(record)
    temporary = pointer.with_name(f".{spec['key']}.{secrets.token_hex(4)}")
    try:
        write_durably(temporary, content)
        while not link(temporary, pointer):
            with contextlib.suppress(FileNotFoundError):
                stale = pointer.read_bytes()
                published = usable(spec)
                if published is not None:
                    return published
                withdraw(spec, stale)
    except NoLinks:
        # Where only the last record counts, each environment keeps one more of its own.
        write_durably(pointer_of(spec, secrets.token_hex(4)), content)
        os.replace(temporary, pointer)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    if not WINDOWS:
        with contextlib.suppress(OSError):
            descriptor = os.open(pointer.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return record


def to_json(record: Record) -> bytes:
    """Return the content of a record's file."""
    return json.dumps(record).encode()


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file that is on disk afterwards."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


class NoLinks(OSError):
    """The file system has no hard links."""


def link(source: Path, target: Path) -> bool:
    """Give a file one more name; return whether it has it. Raises :class:`NoLinks`."""
    try:
        os.link(source, target)
    except FileExistsError:
        # What was asked of NFS twice may have been done the first time.
        with contextlib.suppress(FileNotFoundError):
            return os.path.samefile(source, target)
        return False
    except FileNotFoundError:
        raise
    except (OSError, AttributeError) as error:
        raise NoLinks from error
    return True


def withdraw(spec: Spec, content: bytes) -> None:
    """Remove the record of the key if that is still what it says.

    One that took its place meanwhile is put back; some record names its environment all along.
    """
    pointer, aside = pointer_of(spec), pointer_of(spec, secrets.token_hex(4))
    with contextlib.suppress(FileNotFoundError):
        os.rename(pointer, aside)
        if aside.read_bytes() == content or link(aside, pointer):
            aside.unlink()


def try_lock(file: BinaryIO) -> bool:
    """Take the lock if it is free. Raises ``OSError`` where the file system has no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            # Beyond the end: a locked byte cannot be read through another handle.
            file.seek(1 << 30)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


@contextlib.contextmanager
def lock(spec: Spec) -> Iterator[None]:
    """Hold the lock of a key, or go on without it where it cannot be had.

    Waiting ends early once the record of the key is usable.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory = Path(spec["root"]) / "locks"
            directory.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(directory / f"{spec['key']}.lock", "a+b"))
            told = 0.0
            while not try_lock(file):
                if usable(spec) is not None:
                    break
                if time.monotonic() - told > 30 or told == 0.0:
                    told = time.monotonic()
                    emit("waiting")
                time.sleep(0.05)
        except OSError:
            pass
        yield


def is_abandoned(env: Path) -> bool:
    """Whether nobody builds this environment: its builder would hold a lock on a file of it."""
    try:
        # Between the creation of a directory and the lock of its owner.
        if time.time() - env.stat().st_mtime < YOUNG:
            return False
        with open(env / OWNER_FILE, "a+b") as owner:
            return try_lock(owner)
    except OSError:
        with contextlib.suppress(OSError):
            return time.time() - env.stat().st_mtime > DEAD_AFTER
        return False


def collect(spec: Spec) -> None:
    """Remove what crashed builds left behind."""
    root = Path(spec["root"])
    with contextlib.suppress(OSError):
        # First who is dead, then what is published: whoever died in between has published before.
        dead = [env for env in (root / "envs").iterdir() if is_abandoned(env)]
        kept = set()
        for pointer in (root / "ready").glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                kept.add(json.loads(pointer.read_text("utf-8"))["name"])
        for env in dead:
            if env.name not in kept:
                emit("collected", name=env.name)
                shutil.rmtree(env, ignore_errors=True)


# Whatever else the user configured for pip and uv holds; where they install is decided here.
MISLEADING = re.compile(
    r"VIRTUAL_ENV|CONDA_PREFIX|PYTHON(HOME|PATH)|"
    r"PIP_(TARGET|PREFIX|ROOT|USER|PYTHON|REQUIRE_VIRTUALENV)|UV_(PYTHON|SYSTEM_PYTHON|TARGET|PREFIX)"
)


def run(command: list[str], spec: Spec, on_line: Any = None) -> None:
    """Run a command to its end; raise :class:`BuildError` with its last output when it fails."""
    environment = {
        name: value for name, value in os.environ.items() if not MISLEADING.fullmatch(name)
    }
    environment |= {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        # An environment whose marker was removed passes for the interpreter below it.
        "PIP_REQUIRE_VIRTUALENV": "1",
    }
    try:
        process = subprocess.Popen(
            command,
            cwd=spec["directory"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise BuildError(command, None, str(error)) from error
    tail: list[str] = []
    assert process.stdout is not None
    try:
        for raw in process.stdout:
            line = raw.rstrip()
            if on_line is not None and on_line(line):
                continue
            tail.append(line)
            del tail[:-OUTPUT_LINES]
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code != 0:
        raise BuildError(command, code, "\n".join(tail))


PACKAGE_EVENTS = (
    ("collect", re.compile(r"^Collecting ([A-Za-z0-9][\w.-]*)")),
    ("collect", re.compile(r"^Processing (?:.*[\\/])?(\S+)")),
    ("download", re.compile(r"^\s*Downloading (\S+(?: \([^)]*\))?)")),
    ("download", re.compile(r"^\s*Using cached (\S+(?: \([^)]*\))?)")),
    ("build", re.compile(r"^\s*Building wheel for (\S+)")),
    ("install", re.compile(r"^Installing collected packages: (.+)")),
    ("install", re.compile(r"^ \+ (\S+)")),
)
BYTES = re.compile(r"^Progress (\d+) of (\d+)$")
REPORT_EVERY = 0.1


def reporter() -> Any:
    """Return a function that turns pip's and uv's lines into events.

    It says whether a line is only progress, and so no output that explains a failure.
    """
    last = 0.0

    def on_line(line: str) -> bool:
        nonlocal last
        progress = BYTES.match(line)
        if progress is not None:
            done, total = int(progress[1]), int(progress[2])
            if done >= total or time.monotonic() - last > REPORT_EVERY:
                last = time.monotonic()
                emit("bytes", done=done, total=total)
            return True
        for kind, pattern in PACKAGE_EVENTS:
            match = pattern.match(line)
            if match is not None:
                emit("package", kind=kind, name=match[1])
                break
        return False

    return on_line


def pip_version() -> tuple[int, ...] | None:
    """Return the version of the base interpreter's pip."""
    if importlib.util.find_spec("pip") is None:
        return None
    try:
        parts = re.findall(r"\d+", importlib.metadata.version("pip"))[:2]
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in parts)


def create(spec: Spec, env: Path) -> list[str]:
    """Make an empty environment; return the command that installs into it."""
    python = str(interpreter_of(env))
    if spec["uv"] is not None:
        # `--allow-existing`: the directory holds the owner file already.
        make = [
            spec["uv"],
            "venv",
            "--no-project",
            "--allow-existing",
            "--python",
            sys.executable,
            str(env),
        ]
        run(make, spec)
        # The prefix: an environment whose marker was removed passes for the interpreter below it.
        return [spec["uv"], "pip", "install", "--python", python, "--prefix", str(env)]
    options = ["install", "--no-user", "--no-input", "--disable-pip-version-check", "--no-color"]
    version = pip_version()
    # `pip --python` came with 22.3, `--progress-bar raw` with 24.1.
    if version is not None and version >= (22, 3):
        run([sys.executable, "-I", "-m", "venv", "--without-pip", str(env)], spec)
        bar = "raw" if version >= (24, 1) else "off"
        return [
            sys.executable,
            "-I",
            "-m",
            "pip",
            "--python",
            python,
            *options,
            "--progress-bar",
            bar,
        ]
    run([sys.executable, "-I", "-m", "venv", str(env)], spec)
    return [python, "-I", "-m", "pip", *options, "--progress-bar", "off"]


def read_dependencies(pyproject: str) -> list[str]:
    """Read the dependencies of a ``pyproject.toml``.

    Python 3.10 has no TOML reader of its own: pip's takes its place.
    """
    toml: Any = None
    for name in ("tomllib", "pip._vendor.tomli"):
        with contextlib.suppress(ImportError):
            toml = importlib.import_module(name)
            break
    try:
        if toml is None:
            raise ValueError("this Python has no TOML reader and no pip")
        project = toml.loads(Path(pyproject).read_text("utf-8")).get("project", {})
        dependencies = [str(dependency) for dependency in project.get("dependencies", [])]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BuildError(["read", pyproject], None, f"{pyproject}: {error}") from error
    if "dependencies" in project.get("dynamic", []):
        warn(
            f"{pyproject} leaves its dependencies to its build backend (dynamic): nothing was "
            "installed for it. List them under [project] dependencies or in requirements.txt"
        )
    return dependencies


def install(spec: Spec, installer: list[str], arguments: list[str]) -> None:
    """Install packages into the environment."""
    if spec["offline"]:
        installer = [*installer, "--no-index"]
    if spec["wheels"] is not None:
        installer = [*installer, "--find-links", spec["wheels"]]
    run([*installer, *arguments], spec, reporter())


def install_requirements(spec: Spec, env: Path, installer: list[str]) -> None:
    """Install what the module asks for."""
    arguments = [part for file in spec["requirements"] for part in ("-r", file)]
    if spec["pyproject"] is not None:
        dependencies = read_dependencies(spec["pyproject"])
        if dependencies:
            # A file and not arguments: a dependency may hold a credential, and everyone can see
            # the arguments of a process.
            listed = env / "synapse-dependencies.txt"
            listed.write_text("\n".join(dependencies) + "\n", "utf-8")
            arguments += ["-r", str(listed)]
    if arguments:
        emit("step", step="install")
        install(spec, installer, arguments)


def install_codec(spec: Spec, env: Path, installer: list[str]) -> bool:
    """Install the runtime's codec. Without it the runtime is slower: a failure is a warning."""
    if not (site_packages_of(env) / "msgspec").is_dir():
        if spec["strict"]:
            warn(f"msgspec is not among the requirements with hashes: {SLOWER}")
            return False
        if spec["offline"] and spec["wheels"] is None:
            warn(f"msgspec is not installed (offline): {SLOWER}")
            return False
        emit("step", step="codec")
        try:
            install(spec, installer, [CODEC])
        except BuildError as error:
            lines = [line.strip() for line in error.output.splitlines() if line.strip()]
            warn(f"msgspec cannot be installed, {SLOWER}: {lines[-1] if lines else ''}")
            return False
    try:
        run([str(interpreter_of(env)), "-I", "-c", "import msgspec"], spec)
    except BuildError as error:
        warn(f"msgspec does not import, {SLOWER}: {error.output[-300:]}")
        return False
    return True


def copy_runtime(spec: Spec, env: Path) -> None:
    """Put a copy of the runtime where editors find it. A package of that name comes first."""
    target = site_packages_of(env) / "synapse"
    if target.exists():
        warn("a requirement installs a package `synapse`: editors will see that one")
        return
    shutil.copytree(spec["runtime"], target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def verify(spec: Spec, env: Path, token: str) -> None:
    """Check that every installed file is there and that the interpreter starts in its prefix."""
    if not check_intact(env, token):
        raise Vanished(str(env))
    check = "import sys; assert sys.prefix != sys.base_prefix, 'not a virtual environment'"
    run([str(interpreter_of(env)), "-I", "-c", check], spec)


def check_intact(env: Path, token: str) -> bool:
    """Whether nothing of the environment was removed since it was built."""
    try:
        if json.loads((env / OWNER_FILE).read_text("utf-8"))["token"] != token:
            return False
        packages = site_packages_of(env)
        for record in packages.glob("*.dist-info/RECORD"):
            with open(record, encoding="utf-8", newline="") as file:
                for row in csv.reader(file):
                    # Byte code is written later or never.
                    if (
                        row
                        and not row[0].endswith(".pyc")
                        and not os.path.lexists(packages / row[0])
                    ):
                        return False
    except (OSError, ValueError, KeyError, Vanished):
        return False
    return interpreter_of(env).exists()


@contextlib.contextmanager
def owned(env: Path, token: str) -> Iterator[None]:
    """Make the directory and hold it as its builder."""
    env.parent.mkdir(parents=True, exist_ok=True)
    env.mkdir()
    with open(env / OWNER_FILE, "xb") as owner:
        with contextlib.suppress(OSError):
            try_lock(owner)
        owner.seek(0)
        owner.write(json.dumps({"pid": os.getpid(), "token": token}).encode())
        owner.flush()
        yield


def discard(spec: Spec, env: Path) -> None:
    """Remove an environment, unless others may have found it by now."""
    record = usable(spec)
    if record is None or record["name"] != env.name:
        shutil.rmtree(env, ignore_errors=True)


def build(spec: Spec) -> tuple[Record, bool]:
    """Build in a directory of its own and publish; return what is visible, and if it is that."""
    root = Path(spec["root"])
    token = secrets.token_hex(4)
    env = root / "envs" / f"{spec['key']}-{token}"
    started = created = False
    try:
        with owned(env, token):
            started = True
            emit("step", step="create")
            installer = create(spec, env)
            created = True
            install_requirements(spec, env, installer)
            codec = install_codec(spec, env, installer)
            copy_runtime(spec, env)
            emit("step", step="verify")
            verify(spec, env, token)
            made = Record(
                schema=SCHEMA, key=spec["key"], root=str(root), name=env.name, codec=codec
            )
            record = publish(spec, made)
            # A cache that is being removed right now may have lost files after they were verified.
            if record is made and not check_intact(env, token):
                with contextlib.suppress(OSError):
                    withdraw(spec, to_json(made))
                raise Vanished(str(env))
        if record is not made:
            shutil.rmtree(env, ignore_errors=True)
        return record, record is made
    except (BuildError, OSError) as error:
        # What is removed while it is built fails in many ways, and a removal takes its time.
        time.sleep(0.2 if started else 0)
        gone = started and not (
            check_intact(env, token) if created else (env / OWNER_FILE).exists()
        )
        discard(spec, env)
        if gone and getattr(error, "errno", None) != errno.ENOSPC:
            raise Vanished(str(env)) from error
        raise
    except BaseException:
        discard(spec, env)
        raise


def provision(spec: Spec) -> None:
    """Build the environment of a key unless it is there, and say where it is."""
    for _ in range(ATTEMPTS):
        with lock(spec):
            record = usable(spec)
            if record is not None:
                emit("ready", name=record["name"], codec=record["codec"], built=False)
                return
            collect(spec)
            try:
                record, built = build(spec)
            except Vanished:
                warn("the cache was removed while it was in use: building again")
                continue
            emit("ready", name=record["name"], codec=record["codec"], built=built)
            return
    raise BuildError(
        ["build", spec["root"]],
        None,
        "the cache is removed again and again while it is in use",
    )


def end_with_parent() -> None:
    """End this process and what it started when nobody waits for the result any more.

    Standard input is a pipe that nobody writes to: it ends with the process at its other end.
    """
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(75)


def on_terminate(number: int, _frame: FrameType | None) -> None:
    """Leave by an exception, so that the unfinished environment is removed."""
    sys.exit(128 + number)


def main() -> int:
    """Read the specification, build, report."""
    spec: Spec = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, on_terminate)
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        provision(spec)
    except BuildError as error:
        emit("failed", command=error.command, exitCode=error.exit_code, output=error.output)
        return 1
    except OSError as error:
        emit("failed", command=["build", spec["root"]], exitCode=None, output=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
