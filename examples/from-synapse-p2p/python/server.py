from synapse.p2p import Server

app = Server(namespace="cryptocurrencies.bitcoin")


@app.background(seconds=5)
async def do_stuff():
    print("I am doing stuff in the background")


@app.endpoint("get_nodes")
async def get_nodes(**kwargs):
    return f"Here are the nodes I know about..."


@app.endpoint("broadcast_message")
async def broadcast_message(message, **kwargs):
    return f"Sending your message to known nodes: {message}"


app.run()
