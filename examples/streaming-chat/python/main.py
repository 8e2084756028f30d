"""A chat whose answers come word by word. It stands for a language model and needs none."""

import asyncio
import random
from collections.abc import AsyncIterator

import synapse

ANSWERS = {
    "weather": "It will rain in the morning and clear up in the afternoon so take a coat and leave the umbrella at home",
    "python": "Python and TypeScript get along well as long as somebody carries the values and tidies up behind them",
}


class PromptTooLong(synapse.Error):
    """The prompt has more words than the model takes."""

    limit: int


def about(prompt: str) -> list[str]:
    for topic, answer in ANSWERS.items():
        if topic in prompt.lower():
            return answer.split()
    return "I know about the weather and about Python".split()


@synapse.handler(raises=[PromptTooLong])
async def chat(prompt: str, limit: int = 20) -> AsyncIterator[str]:
    if len(prompt.split()) > limit:
        raise PromptTooLong(limit=limit)
    said = 0
    try:
        for word in about(prompt):
            await asyncio.sleep(random.uniform(0.005, 0.03))
            said += 1
            yield word
    finally:
        # Runs also when the reader has had enough.
        print(f"said {said} words")


@synapse.handler
async def converse(prompts: AsyncIterator[str]) -> AsyncIterator[str]:
    """Answers each prompt as it arrives: a stream in, a stream out."""
    async for prompt in prompts:
        yield f"> {prompt}"
        async for word in chat(prompt):
            yield word
