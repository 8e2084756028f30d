"""zerorpc on the Unix socket that is named on the command line."""

import os
import sys

import gevent
import zerorpc


class Echo:
    def value(self, value):
        return value

    def array(self, data):
        return bytes(memoryview(data).cast("d"))


def end_with_parent() -> None:
    def wait() -> None:
        gevent.get_hub().threadpool.apply(sys.stdin.buffer.read)
        os._exit(0)

    gevent.spawn(wait)


if __name__ == "__main__":
    end_with_parent()
    server = zerorpc.Server(Echo())
    server.bind(sys.argv[1])
    print(sys.argv[1], flush=True)
    server.run()
