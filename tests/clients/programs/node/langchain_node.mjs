// LangChain's npm package for Ollama.

import assert from "node:assert/strict";
import { tool } from "@langchain/core/tools";
import { ChatOllama, OllamaEmbeddings } from "@langchain/ollama";
import { z } from "zod";
import { check, CHAT, EMBED, QUESTION, SKY, TOOLS, url } from "./harness.mjs";

export const CLIENT = "LangChain (npm)";
export const PACKAGES = ["@langchain/ollama"];

const model = (name, more) => new ChatOllama({ model: name, baseUrl: url, temperature: 0, ...more });

check("chat", async () => {
  const reply = await model(CHAT, { numPredict: 8, checkOrPullModel: true }).invoke(SKY);
  assert(reply.content);
  assert.equal(reply.usage_metadata.output_tokens, 8);
});

check("streaming", async () => {
  let text = "";
  for await (const part of await model(CHAT, { numPredict: 8 }).stream(SKY)) text += part.content;
  assert.equal(text, (await model(CHAT, { numPredict: 8 }).invoke(SKY)).content);
});

check("tools", async () => {
  const weather = tool(async () => "Sunny", {
    name: "get_weather", description: "Weather", schema: z.object({ city: z.string() }),
  });
  const reply = await model(TOOLS).bindTools([weather]).invoke(QUESTION);
  assert.deepEqual(reply.tool_calls[0].args, { city: "Paris" });
});

check("structured output", async () => {
  const schema = z.object({ color: z.enum(["blue", "red"]) });
  const typed = model(CHAT, { numPredict: 40 }).withStructuredOutput(schema, { method: "jsonSchema" });
  assert(schema.parse(await typed.invoke(SKY)));
});

check("embeddings", async () => {
  const embedder = new OllamaEmbeddings({ model: EMBED, baseUrl: url });
  assert.equal((await embedder.embedQuery("hello")).length, 384);
});

check("errors", async () => {
  await assert.rejects(model("nope").invoke(SKY), /not found/);
});
