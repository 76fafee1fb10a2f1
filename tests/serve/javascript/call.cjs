// Calls a service through the client that was generated of its document, and prints what came as JSON.
//
//   node call.cjs MODULES GENERATED URL TOKEN
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { join, resolve } = require("node:path");

const [modules, generated, baseUrl, token] = process.argv.slice(2);
const typescript = createRequire(join(resolve(modules), "/"))("typescript");

// The client is TypeScript: each file is made JavaScript when it is loaded. Types are not checked.
const { CommonJS } = typescript.ModuleKind;
const compilerOptions = { module: CommonJS, target: typescript.ScriptTarget.ES2022 };
require.extensions[".ts"] = (module, file) => {
  const { outputText } = typescript.transpileModule(readFileSync(file, "utf8"), { compilerOptions });
  module._compile(outputText, file);
};

const sdk = require(join(resolve(generated), "index.ts"));
const { client } = require(join(resolve(generated), "client.gen.ts"));

async function main() {
  client.setConfig({ baseUrl, auth: () => token });
  const answer = await sdk.expand({ body: { positive: ["entity 1"], negative: [2], top_k: 3 } });
  const entity = await sdk.entity({ path: { given: "entity 1" }, query: { neighbours: 0 } });
  const found = await sdk.entities({ query: { search: "entity 12", limit: 2 } });
  const unknown = await sdk.expand({ body: { positive: ["entty 1"] } });
  const made = await sdk.createSet({ body: { name: "evens" } });
  const change = { kind: "judge", accept: ["entity 2"] };
  const path = { set_id: made.data.id };
  const changed = await sdk.changeSet({ path, body: { version: made.data.version, change } });
  const refused = await sdk.readAudit();
  const { stream } = await sdk.expandStream({ body: { positive: ["entity 1"], top_k: 3 } });
  const events = [];
  for await (const data of stream) events.push(data);
  console.log(JSON.stringify({
    results: answer.data.results,
    entity: entity.data.name,
    found: found.data.entities.map((one) => one.name),
    unknown: [unknown.response.status, unknown.error.error],
    changed: [made.data.created_by, changed.data.version, changed.data.counts],
    refused: [refused.response.status, refused.error.error.code],
    streamed: events.at(-1).results,
  }));
}

main();
