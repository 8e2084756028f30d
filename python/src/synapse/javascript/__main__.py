"""The command line: `python -m synapse.javascript keys | sign | eval`."""

from __future__ import annotations

import argparse
import json
import sys

from synapse.javascript import Client, JavaScriptError, NodeError, generate_keys, sign


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m synapse.javascript")
    commands = parser.add_subparsers(dest="command", required=True)
    keys = commands.add_parser("keys", help="make PREFIX.pubkey and PREFIX.privkey")
    keys.add_argument("prefix")
    signing = commands.add_parser("sign", help="write a signed module")
    signing.add_argument("module")
    signing.add_argument("out")
    signing.add_argument("--key", required=True, help="the file of the private key")
    evaluating = commands.add_parser("eval", help="print the value of an expression, as JSON")
    evaluating.add_argument("expression", help="the expression, or - to read it from stdin")
    evaluating.add_argument("--module", help="a module that the expression has as m")
    given = parser.parse_args(arguments)
    try:
        if given.command == "keys":
            generate_keys(given.prefix)
        elif given.command == "sign":
            sign(given.module, given.out, given.key)
        else:
            evaluate(given.expression, given.module)
    except JavaScriptError as error:
        print(error.stack, file=sys.stderr)
        return 1
    except (NodeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def evaluate(expression: str, module: str | None) -> None:
    """Print the value of an expression, which may wait for promises."""
    source = sys.stdin.read() if expression == "-" else expression
    with Client(threads=1, module=module) as client:
        print(json.dumps(json.loads(client.run_raw(f"async (m) => (\n{source}\n)", "null"))))


if __name__ == "__main__":
    sys.exit(main())
