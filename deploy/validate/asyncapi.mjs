// Holds docs/asyncapi.json to the specification with AsyncAPI's own parser: asyncapi.mjs NODE_MODULES FILE.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

const [modules, file] = process.argv.slice(2);
const { Parser } = createRequire(join(resolve(modules), "/"))("@asyncapi/parser");

// What is not a fault: 3.0 is what most generators read, and 3.1 has nothing that is needed here.
const allowed = new Set(["asyncapi-latest-version"]);
const levels = ["error", "warning", "information", "hint"];

const { document, diagnostics } = await new Parser().parse(readFileSync(file, "utf8"));
const faults = diagnostics
  .filter(({ code }) => !allowed.has(code))
  .map(({ severity, code, path, message }) => `${levels[severity]} at ${path.join(".") || "the top"}: ${message} (${code})`);
if (!document?.allOperations().all().length || !document?.allMessages().all().length) {
  faults.push("the parser finds no operations or no messages in it");
}
for (const fault of faults) console.log(fault);
process.exitCode = faults.length > 0 ? 1 : 0;
