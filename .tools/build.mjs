// Builds what is asked for and out of date: `npm run build [-- native|sanitize|wasm|wasm-debug|module|package|page]`, by
// default the module (which is the preset wasm without its tests), the package and the page. CMake's presets are usable
// without this file; it only hands them the toolchain.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setup } from "./setup.mjs";
import { fail, is_main, root, run, say } from "./shell.mjs";
import { find_toolchain } from "./toolchain.mjs";

const kPresets = ["native", "sanitize", "wasm", "wasm-debug"];
/// What the page needs.
export const kDefault = ["module", "package", "page"];

/// Builds one target, skipping what is up to date. A failure ends the program with the compiler's message.
export async function build(target) {
  if (kPresets.includes(target)) return build_cpp(target);
  if (target === "module") return build_cpp("wasm", ["engine", "engine-relaxed", "decoder"]);
  if (target === "package") return build_package();
  if (target === "page") return build_page();
  fail(
    `There is nothing called "${target}" to build.`,
    `Choose from ${[...kPresets, "module", "package", "page"].join(", ")}.`,
  );
}

/// Builds one CMake target of a preset.
export const build_part = (preset, part) => build_cpp(preset, [part]);

/// The environment that the presets and their tests need.
export function cpp_environment() {
  const toolchain = find_toolchain() ?? fail("The C++ toolchain is missing.", "Run: npm run setup");
  return { ...toolchain.env, NIBBLE_EMSCRIPTEN: toolchain.emscripten };
}

function build_cpp(preset, parts = ["all"]) {
  const { include } = find_toolchain() ?? fail("The C++ toolchain is missing.", "Run: npm run setup");
  const env = cpp_environment();
  const folder = join(root, "build", preset);
  const stamp = join(folder, "configured.json");
  const wanted = JSON.stringify({ include, emscripten: env.NIBBLE_EMSCRIPTEN });
  const known = existsSync(stamp) ? readFileSync(stamp, "utf8") : undefined;
  if (known !== wanted || !existsSync(join(folder, "build.ninja"))) {
    say(`configuring ${preset}`);
    const fresh = known === undefined || known === wanted ? [] : ["--fresh"];
    const args = [...fresh, "--preset", preset, `-DNIBBLE_INCLUDE=${include}`];
    run("cmake", args, { cwd: root, env, quiet: true, why: `CMake could not configure ${preset}.` });
    writeFileSync(stamp, wanted);
  }
  const started = Date.now();
  run("cmake", ["--build", folder, "--target", ...parts, "--parallel", String(availableParallelism())], {
    cwd: root,
    env,
    why: `The C++ build ${preset} failed.`,
  });
  say(`${parts[0] === "all" ? preset : "the module"} is built (${seconds(started)})`);
}

async function build_package() {
  const compiled = ["engine.mjs", "engine.wasm", "engine-relaxed.wasm", "decoder.wasm"].map((name) =>
    join("build", "wasm", "wasm", name),
  );
  const inputs = [
    "wasm/src",
    "wasm/package.json",
    "wasm/tsconfig.json",
    "package-lock.json",
    ".tools/package.mjs",
    ...compiled,
  ];
  await when_changed(
    "package",
    inputs,
    ["wasm/dist/index.js", "wasm/dist/index.d.ts", "wasm/dist/engine.wasm"],
    async () => {
      const { build_package } = await import("./package.mjs");
      await build_package();
    },
  );
}

async function build_page() {
  const inputs = ["web", "wasm/dist", "package-lock.json"];
  await when_changed("page", inputs, ["web/dist/index.html"], () => {
    run("npm", ["run", "--silent", "build", "--workspace", "web"], { cwd: root, why: "The page could not be built." });
  });
}

/// Does the work unless the inputs are what they were when it was last done and the outputs are still there.
async function when_changed(name, inputs, outputs, work) {
  const stamp = join(root, "build", `${name}.stamp`);
  const hash = hash_of(inputs);
  const done = existsSync(stamp) && readFileSync(stamp, "utf8") === hash;
  if (done && outputs.every((file) => existsSync(join(root, file)))) return;
  const started = Date.now();
  await work();
  mkdirSync(join(root, "build"), { recursive: true });
  writeFileSync(stamp, hash);
  say(`the ${name} is built (${seconds(started)})`);
}

function hash_of(inputs) {
  const hash = createHash("sha256");
  for (const path of inputs.flatMap((input) => files_below(input))) {
    hash
      .update(`${path}\0`)
      .update(readFileSync(join(root, path)))
      .update("\0");
  }
  return hash.digest("hex");
}

/// Paths of all files at or below a path, without what is built or installed.
export function files_below(path) {
  const full = join(root, path);
  if (!existsSync(full)) return [];
  if (statSync(full).isFile()) return [path];
  const generated = path.startsWith("wasm/dist") ? [] : ["dist", "node_modules", "build", "test-results"];
  return readdirSync(full)
    .sort()
    .filter((name) => !generated.includes(name))
    .flatMap((name) => files_below(`${path}/${name}`));
}

const seconds = (started) => `${((Date.now() - started) / 1000).toFixed(1)} s`;

if (is_main(import.meta.url)) {
  const targets = process.argv.slice(2);
  setup();
  for (const target of targets.length > 0 ? targets : kDefault) await build(target);
}
