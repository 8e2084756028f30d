// The examples of a program for python-shell, over a class of `synapse`. Run it with `npm run example from-chat-model-native`.
import { Controller as ChatModel } from "effect-synapse/promise"

{
  const chat = new ChatModel({ model: "something" })

  await chat.setProperty("tokenizer", 123)

  const modelResponse = await chat.getModelPath()
  console.log(modelResponse) // { model: "something" }

  const tokenizerResponse = await chat.getTokenizer()
  console.log(tokenizerResponse) // { tokenizer: 123 }

  const response = await chat.increment({ by: 5 })
  console.log("Incremented counter:", response.counter)

  chat.onMessage((data) => {
    console.log(data) // receives streamed partial results
  })

  chat.testStream()
  chat.end()
}

{
  const chat = new ChatModel({ model: "gpt" })

  await chat.setProperty("tokenizer", 42)

  const info = await chat.getModelPath()
  console.log(info) // { model: "gpt" }

  chat.onMessage((data) => {
    console.log("Streamed partial data:", data)
  })

  await chat.testStream()
  await chat.end()
}
