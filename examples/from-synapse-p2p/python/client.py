import socket

from synapse.p2p import RemoteProcedureCall

sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)

# Connect to the node
sock.connect(("127.0.0.1", 9999))

sock.send(
    RemoteProcedureCall(endpoint="broadcast_message", args=["hello everyone"]).encode()
)

data = sock.recv(1024)
print(f"Received: \n{data.decode()}")
sock.close()
