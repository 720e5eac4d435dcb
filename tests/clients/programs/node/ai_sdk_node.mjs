// Vercel's AI SDK with its Ollama provider.

import assert from "node:assert/strict";
import { embed, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { createOllama } from "ollama-ai-provider-v2";
import { z } from "zod";
import { check, CHAT, EMBED, QUESTION, SKY, TOOLS, url } from "./harness.mjs";

export const CLIENT = "AI SDK";
export const PACKAGES = ["ai", "ollama-ai-provider-v2"];

const ollama = createOllama({ baseURL: `${url}/api` });
// The provider sends temperature and maxOutputTokens where Ollama does not look for them.
const options = (more) => ({ ollama: { options: { temperature: 0, ...more } } });
const greedy = { model: ollama(CHAT), maxRetries: 0, providerOptions: options({ num_predict: 8 }) };

check("chat", async () => {
  const { text, usage } = await generateText({ ...greedy, prompt: SKY });
  assert(text);
  assert.equal(usage.outputTokens, 8);
});

check("streaming", async () => {
  let text = "";
  for await (const part of streamText({ ...greedy, prompt: SKY }).textStream) text += part;
  assert.equal(text, (await generateText({ ...greedy, prompt: SKY })).text);
});

check("tools", async () => {
  const cities = [];
  const weather = tool({
    description: "Weather",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => { cities.push(city); return "Sunny"; },
  });
  const { text } = await generateText({
    model: ollama(TOOLS), prompt: QUESTION, maxRetries: 0, providerOptions: options(),
    tools: { get_weather: weather }, stopWhen: stepCountIs(2),
  });
  assert.deepEqual(cities, ["Paris"]);
  assert(text);
});

check("structured output", async () => {
  const schema = z.object({ color: z.enum(["blue", "red"]) });
  const { output } = await generateText({
    ...greedy, providerOptions: options(), prompt: SKY, output: Output.object({ schema }),
  });
  assert(schema.parse(output));
});

check("embeddings", async () => {
  const { embedding } = await embed({ model: ollama.textEmbeddingModel(EMBED), value: "hello" });
  assert.equal(embedding.length, 384);
});

check("errors", async () => {
  await assert.rejects(generateText({ ...greedy, model: ollama("nope"), prompt: SKY }), /not found/i);
});
