// OpenAI's npm package on /v1.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { check, CHAT, CRASH, EMBED, ENDLESS, QUESTION, SKY, stopped, TOOL, TOOLS, url } from "./harness.mjs";

export const CLIENT = "openai (npm)";
export const PACKAGES = ["openai"];

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "ollama", maxRetries: 0 });
const messages = [{ role: "user", content: SKY }];
const greedy = { model: CHAT, messages, temperature: 0, max_tokens: 8 };

check("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert(ids.includes(CHAT));
});

check("streaming", async () => {
  const whole = await client.chat.completions.create(greedy);
  const stream = client.chat.completions.stream(greedy);
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(final.choices[0].finish_reason, "length");
});

check("tools", async () => {
  const asked = [{ role: "user", content: QUESTION }];
  const request = { model: TOOLS, messages: asked, tools: [TOOL], temperature: 0 };
  const final = await client.chat.completions.stream(request).finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
  assert.equal(final.choices[0].finish_reason, "tool_calls");
});

check("responses", async () => {
  const request = { model: CHAT, input: SKY, max_output_tokens: 8, temperature: 0 };
  const final = await client.responses.stream(request).finalResponse();
  assert.equal(final.output_text, (await client.responses.create(request)).output_text);
});

check("embeddings", async () => {
  const { data } = await client.embeddings.create({ model: EMBED, input: "hello" });
  const length = Math.hypot(...data[0].embedding);
  assert.equal(data[0].embedding.length, 384);
  assert(Math.abs(length - 1) < 1e-4, `a vector of length ${length}`);
});

check("cancel in mid-stream", async () => {
  const asked = [{ role: "user", content: "x" }];
  const request = { model: ENDLESS, messages: asked, stream: true };
  let parts = 0;
  for await (const _ of await client.chat.completions.create(request)) if (++parts === 3) break;
  await stopped();
});

check("errors", async () => {
  const asked = client.chat.completions.create({ ...greedy, model: "nope" });
  await assert.rejects(asked, OpenAI.NotFoundError);
  const stream = await client.chat.completions.create({ model: CRASH, messages, stream: true });
  await assert.rejects(async () => { for await (const _ of stream); }, /SIGKILL/);
});
