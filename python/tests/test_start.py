from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import HELLO, MAIN, Worker, write

Start = Callable[..., Worker]


def hello_of(worker: Worker) -> dict[str, Any]:
    got = worker.receive()
    assert got.kind == HELLO
    return got.payload


def test_hello_says_who_speaks(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "import synapse\n@synapse.handler\ndef main(): pass\n")
    worker = launch()
    hello = hello_of(worker)
    assert hello == {
        "protocol": 1,
        "runtime": "0.1.0",
        "python": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "pid": worker.process.pid,
        "codec": "msgspec",
        "methods": [{"name": "main", "stream": False, "async": False}],
        "contract": None,
    }


def test_an_exception_while_importing_is_told_and_the_worker_leaves(
    launch: Start, tmp_path: Path
) -> None:
    write(tmp_path, "def load():\n    raise ValueError('no model')\n", "models.py")
    write(tmp_path, "import models\nprint('so far')\nmodels.load()\n")
    worker = launch()
    failure = hello_of(worker)["failure"]
    assert (failure["type"], failure["message"]) == ("ValueError", "no model")
    # Neither the runtime nor the import machinery is in it.
    assert [(Path(each["file"]).name, each["line"]) for each in failure["frames"]] == [
        ("main.py", 3),
        ("models.py", 2),
    ]
    assert worker.wait() == 1
    assert worker.output()[0] == "so far\n"


def test_a_missing_package_is_told(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "import nowhere_to_be_found\n")
    worker = launch()
    failure = hello_of(worker)["failure"]
    assert failure["type"] == "ModuleNotFoundError"
    assert failure["message"] == "No module named 'nowhere_to_be_found'"
    assert failure["frames"][-1]["code"] == "import nowhere_to_be_found"


def test_a_missing_module_is_told(launch: Start) -> None:
    worker = launch()
    failure = hello_of(worker)["failure"]
    assert failure["message"] == "No module named 'main'"
    assert worker.wait() == 1


def test_a_syntax_error_is_told_with_its_line(launch: Start, tmp_path: Path) -> None:
    path = write(tmp_path, "import os\n\ndef broken(:\n    pass\n")
    worker = launch()
    failure = hello_of(worker)["failure"]
    assert failure["type"] == "SyntaxError"
    assert "line 3" in failure["message"]
    assert failure["frames"] == [
        {"file": str(path), "line": 3, "function": "<module>", "code": "def broken(:"}
    ]


@pytest.mark.parametrize("error", ["sys.exit(3)", "raise KeyboardInterrupt", "raise SystemExit"])
def test_leaving_while_importing_is_told(launch: Start, tmp_path: Path, error: str) -> None:
    write(tmp_path, f"import sys\n{error}\n")
    worker = launch()
    assert hello_of(worker)["failure"]["type"] in ("SystemExit", "KeyboardInterrupt")
    assert worker.wait() == 1


def test_a_module_that_ends_the_process_ends_the_process(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "import os\nos._exit(9)\n")
    worker = launch()
    assert worker.wait() == 9
    with pytest.raises((EOFError, ConnectionError)):
        worker.receive()


def test_two_handlers_of_one_name_are_told_with_both_places(launch: Start, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        import synapse

        @synapse.handler
        def main(): pass

        @synapse.handler(name="main")
        def other(): pass
        """,
    )
    failure = hello_of(launch())["failure"]
    assert failure["message"] == f"two handlers are called `main`: {path}:4 and {path}:7"


def test_annotations_that_cannot_be_resolved_are_told(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "import synapse\n@synapse.handler\ndef main(a: 'Nothing', b): pass\n")
    failure = hello_of(launch())["failure"]
    assert failure["type"] == "TypeError"
    assert failure["message"].startswith("handler `main`: its annotations cannot be resolved")


def test_a_type_that_cannot_arrive_is_told_with_its_place(launch: Start, tmp_path: Path) -> None:
    source = "import synapse\nclass Plain: ...\n@synapse.handler\ndef main(a: Plain, b): pass\n"
    path = write(tmp_path, source)
    assert hello_of(launch())["failure"]["message"] == (
        "handler `main`: parameter `a`: `Plain` is not a type that can arrive: "
        f"use a dataclass, or `Any` ({path}:3)"
    )


def test_annotations_may_name_what_comes_later(start: Start) -> None:
    worker = start("""
        from __future__ import annotations
        import dataclasses
        import synapse

        @synapse.handler
        def main(point: Point, scale: int):
            return point.x * scale

        @dataclasses.dataclass
        class Point:
            x: int
    """)
    assert worker.value("main", {"point": {"x": 2}, "scale": 3}) == 6


def test_a_module_in_a_package_is_found_by_its_dotted_name(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "VALUE = 7\n", "app/__init__.py")
    write(tmp_path, "VALUE = 8\n", "app/models.py")
    write(
        tmp_path,
        """
        import synapse
        from . import VALUE, models

        @synapse.handler
        def main():
            return [__name__, VALUE, models.VALUE]
        """,
        "app/worker.py",
    )
    worker = launch("app.worker")
    worker.welcome()
    assert worker.value("main") == ["app.worker", 7, 8]


def test_a_package_can_be_the_entrypoint(launch: Start, tmp_path: Path) -> None:
    source = "import synapse\nfrom . import part\n@synapse.handler\ndef main(): return __name__\n"
    write(tmp_path, source, "app/__init__.py")
    write(tmp_path, "", "app/part.py")
    worker = launch("app")
    worker.welcome()
    assert worker.value("main") == "app"


def test_a_module_may_be_called_like_one_of_the_standard_library(
    launch: Start, tmp_path: Path
) -> None:
    write(
        tmp_path,
        """
        import json
        import synapse

        @synapse.handler
        def main():
            return [__name__, json.dumps({}), __file__]
        """,
        "json.py",
    )
    worker = launch("json")
    worker.welcome()
    assert worker.value("main") == ["_synapse_json", "{}", str(tmp_path / "json.py")]


def test_files_beside_the_module_do_not_replace_the_standard_library(
    launch: Start, tmp_path: Path
) -> None:
    for name in ("json", "logging", "asyncio", "typing", "msgspec"):
        write(tmp_path, "raise SystemError('hijacked')\n", f"{name}.py")
    write(tmp_path, "VALUE = 1\n", "beside.py")
    write(
        tmp_path,
        """
        import json, logging, asyncio
        import beside
        import synapse

        @synapse.handler
        async def main():
            return beside.VALUE
        """,
    )
    worker = launch(env={"PYTHONPATH": str(tmp_path)})
    worker.welcome()
    assert worker.value("main") == 1


def test_files_beside_the_module_come_before_installed_packages(
    launch: Start, tmp_path: Path
) -> None:
    write(tmp_path, "VALUE = 'ours'\n", "iniconfig.py")
    write(
        tmp_path,
        """
        import iniconfig
        import synapse

        @synapse.handler
        def main():
            return iniconfig.VALUE
        """,
    )
    worker = launch()
    worker.welcome()
    assert worker.value("main") == "ours"


def test_a_module_cannot_be_called_synapse(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "", "synapse.py")
    assert "runtime" in hello_of(launch("synapse"))["failure"]["message"]


def test_the_variables_of_the_start_are_taken_out_of_the_environment(start: Start) -> None:
    worker = start(
        """
        import os
        import synapse

        @synapse.handler
        def main():
            return [name for name in os.environ if name.startswith("SYNAPSE_")]
        """,
        env={"SYNAPSE_PPID": str(os.getpid()), "SYNAPSE_PDEATHSIG": "0"},
    )
    own = [name for name in os.environ if name.startswith("SYNAPSE_")]
    assert sorted(worker.value("main")) == sorted(own)


@pytest.mark.parametrize(
    "arguments", [[], ["a", "b"], ["-c"], ["../main"], ["a..b"], ["a b"], ["main.py/"], [""]]
)
def test_a_wrong_command_line_is_refused(arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(MAIN), *arguments]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 78
    assert run.stderr.startswith("synapse: ")


def test_a_worker_without_a_channel_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "")
    command = [sys.executable, "-I", str(MAIN), "main"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 78
    assert "descriptor 3 is not a socket" in run.stderr


def test_the_module_can_be_imported_without_a_worker(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import sys
        import synapse

        class Bad(synapse.Error):
            why: str

        @synapse.handler(raises=[Bad])
        def main(x: int) -> int:
            return x + 1

        assert main(1) == 2
        assert sys.stdout is sys.__stdout__
        try:
            synapse.context()
        except RuntimeError as error:
            print(error)
        """,
    )
    run = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(MAIN.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "synapse.context() was called outside of a handler\n"


def test_processes_of_multiprocessing_can_be_spawned(start: Start) -> None:
    worker = start("""
        import multiprocessing
        import synapse

        def double(n):
            return n * 2

        @synapse.handler
        def main():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.map(double, [1, 2])
    """)
    assert worker.value("main") == [2, 4]


def test_hello_says_how_handlers_are_cancelled_and_which_stream(
    launch: Start, tmp_path: Path
) -> None:
    write(
        tmp_path,
        """
        import synapse

        @synapse.handler(cancel="interrupt")
        def one(): pass

        @synapse.handler(cancel="replace", stream=True)
        async def other(): pass
        """,
    )
    assert hello_of(launch())["methods"] == [
        {"name": "one", "stream": False, "async": False, "cancel": "interrupt"},
        {"name": "other", "stream": True, "async": True, "cancel": "replace"},
    ]
