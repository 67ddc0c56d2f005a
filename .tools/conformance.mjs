// `npm run conformance -- DIR [NAME]`: ONNX's own node tests below a folder (those whose name holds NAME), run by the
// WebAssembly build in Node. Ends with "N passed, N refused, N failed".
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { build_part } from "./build.mjs";
import { setup } from "./setup.mjs";
import { fail, root } from "./shell.mjs";

const [folder, name] = process.argv.slice(2);
if (!folder)
  fail("Which folder?", "npm run conformance -- DIR, where DIR holds onnx/backend/test/data of the ONNX repository.");
if (!existsSync(folder)) fail(`There is no folder ${folder}.`, "Give the one that holds ONNX's node tests.");
setup({ tests: true });
build_part("wasm", "conformance");
const program = join(root, "build", "wasm", "tests", "conformance.js");
const { status } = spawnSync(process.execPath, [program, resolve(folder), ...(name ? [name] : [])], {
  stdio: "inherit",
});
process.exitCode = status ?? 1;
