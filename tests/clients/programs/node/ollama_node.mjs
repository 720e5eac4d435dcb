// Ollama's own npm package.

import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { check, CHAT, CRASH, EMBED, ENDLESS, QUESTION, SKY, stopped, TOOL, TOOLS, url } from "./harness.mjs";

export const CLIENT = "ollama (npm)";
export const PACKAGES = ["ollama"];

const client = new Ollama({ host: url });
const messages = [{ role: "user", content: SKY }];
const options = { temperature: 0, num_predict: 8 };

check("list, show", async () => {
  const { models } = await client.list();
  assert(models.some((model) => model.name === CHAT));
  assert.equal((await client.show({ model: CHAT })).details.family, "llama");
});

check("chat", async () => {
  const reply = await client.chat({ model: CHAT, messages, options });
  assert.equal(reply.eval_count, 8);
});

check("streaming", async () => {
  const whole = await client.chat({ model: CHAT, messages, options });
  let text = "";
  for await (const part of await client.chat({ model: CHAT, messages, options, stream: true })) {
    text += part.message.content;
  }
  assert.equal(text, whole.message.content);
});

check("tools", async () => {
  const asked = [{ role: "user", content: QUESTION }];
  const request = { model: TOOLS, messages: asked, tools: [TOOL], options: { temperature: 0 } };
  const [call] = (await client.chat(request)).message.tool_calls;
  assert.deepEqual(call.function.arguments, { city: "Paris" });
});

check("structured output", async () => {
  const format = { type: "object", properties: { a: { type: "boolean" } }, required: ["a"] };
  const reply = await client.chat({ model: CHAT, messages, format, options: { temperature: 0 } });
  assert.equal(typeof JSON.parse(reply.message.content).a, "boolean");
});

check("embeddings", async () => {
  const { embeddings } = await client.embed({ model: EMBED, input: ["hello", "bye"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [384, 384]);
});

check("cancel in mid-stream", async () => {
  const stream = await client.generate({ model: ENDLESS, prompt: "x", stream: true });
  let parts = 0;
  await assert.rejects(async () => {
    for await (const _ of stream) if (++parts === 3) stream.abort();
  }, { name: "AbortError" });
  await stopped();
});

check("errors", async () => {
  await assert.rejects(client.chat({ model: "nope", messages }), /model 'nope' not found/);
  const stream = await client.generate({ model: CRASH, prompt: "x", stream: true });
  await assert.rejects(async () => { for await (const _ of stream); }, /SIGKILL/);
});

check("concurrent use", async () => {
  const asked = Array.from({ length: 8 }, () => client.chat({ model: CHAT, messages, options }));
  const texts = (await Promise.all(asked)).map((reply) => reply.message.content);
  assert.equal(new Set(texts).size, 1);
});
