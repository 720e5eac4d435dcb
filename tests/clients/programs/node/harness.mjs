// Runs the checks of client programs where their packages are installed:
//
//     node harness.mjs URL MODULE…
//
// Each check's outcome is printed as one line of JSON as soon as it is known.

import assert from "node:assert/strict";

export const [url, ...modules] = process.argv.slice(2);
export const [CHAT, TOOLS, EMBED] = ["smollm2:135m", "tools", "all-minilm"];
// Reference models: one never ends by itself, one dies within its answer.
export const [ENDLESS, CRASH] = ["endless", "crash"];

export const SKY = "Why is the sky blue?";
export const QUESTION = "What is the weather in Paris?";
export const TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};

let checks = [];

export function check(name, run) {
  checks.push({ name, run });
}

async function call(path, body) {
  const init = body && { method: "POST", body: JSON.stringify(body) };
  return (await fetch(url + path, init)).json();
}

// Fails unless the endless model's answers have ended: only then does it go when told to.
export async function stopped() {
  await call("/api/generate", { model: ENDLESS, keep_alive: 0 });
  for (let n = 0; n < 600; n++) {
    const { models } = await call("/api/ps");
    if (models.every((model) => model.name !== `${ENDLESS}:latest`)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail("it still answers a client that has gone");
}

async function main() {
  const print = process.stdout.write.bind(process.stdout);
  console.log = console.error; // what clients print is not a result
  for (const module of modules) {
    checks = [];
    await import(`./${module}.mjs`);
    for (const { name, run } of checks) {
      const began = Date.now();
      let problem = "";
      try {
        await run();
      } catch (error) {
        problem = String(error?.stack ?? error);
      }
      const seconds = (Date.now() - began) / 1000;
      print(JSON.stringify({ program: module, check: name, problem, seconds }) + "\n");
    }
  }
  process.exit(0);
}

main(); // not awaited: the programs import this module, which has to have ended its evaluation
