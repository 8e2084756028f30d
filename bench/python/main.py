import synapse


@synapse.handler
def main(payload):
    return payload


@synapse.handler
async def async_main(payload):
    return payload
