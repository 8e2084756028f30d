import synapse


@synapse.handler
def main(payload):
    values = payload["values"]
    return {"mean": sum(values) / len(values), "count": len(values)}


@synapse.handler
def greet(name: str) -> str:
    return f"Hello, {name}!"
