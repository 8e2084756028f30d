"""The synchronous server of grpcio, on the Unix socket that is named on the command line."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

here = Path(__file__).resolve().parent
sys.path += [str(here), str(here.parent)]
from parent import end_with_parent  # noqa: E402

messages, services = grpc.protos_and_services("echo.proto")


class Echo(services.EchoServicer):
    def Value(self, request, context):
        return request

    def Bytes(self, request, context):
        return request

    def Array(self, request, context):
        return messages.Blob(data=bytes(memoryview(request.data).cast("d")))


if __name__ == "__main__":
    end_with_parent()
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(max_workers=1), options=unlimited)
    services.add_EchoServicer_to_server(Echo(), server)
    address = f"unix:{sys.argv[1]}"
    server.add_insecure_port(address)
    server.start()
    print(address, flush=True)
    server.wait_for_termination()
