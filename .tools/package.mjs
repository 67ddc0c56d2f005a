// Builds the npm package into wasm/dist: JavaScript by esbuild, declarations by tsc.
import { build } from "esbuild";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { fail, root, run } from "./shell.mjs";

const source = join(root, "wasm", "src");
const dist = join(root, "wasm", "dist");
const compiled = join(root, "build", "wasm", "wasm");
const version = JSON.parse(readFileSync(join(root, "wasm", "package.json"), "utf8")).version;

/// The declarations that the package publishes; the others describe its inside.
const kDeclarations = ["index", "inline", "worker", "api", "types", "decode"];

/// The module, strict and relaxed.
const kModules = ["engine.wasm", "engine-relaxed.wasm"];

/// Emscripten's script as a part of a bundle. It gets the compiled module handed and reads no file, so its code for Node
/// goes (bundlers for browsers stumble over the modules that it names), and so does its own address, which bundlers take
/// for a request to copy a file and which a script made of a blob does not have.
function embedded(script) {
  const cut = script.replace(/\b(var|let|const) ENVIRONMENT_IS_NODE\s*=[^;]+;/, "");
  if (cut === script)
    fail("Emscripten's script no longer declares ENVIRONMENT_IS_NODE as it did.", "Look at .tools/package.mjs.");
  return cut.replaceAll("import.meta.url", '""');
}

/// What every bundle has in common. `inlined` gives the texts that the inlined entry imports.
const options = ({ inlined = {}, ...more }) => ({
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  // Names are part of error messages and of what a debugger shows.
  keepNames: false,
  legalComments: "inline",
  logLevel: "warning",
  define: { NIBBLE_VERSION: JSON.stringify(version), ENVIRONMENT_IS_NODE: "false" },
  absWorkingDir: root,
  plugins: [
    {
      name: "nibble",
      setup(bundle) {
        bundle.onResolve({ filter: /^engine-module$/ }, () => ({ path: join(compiled, "engine.mjs") }));
        bundle.onLoad({ filter: /engine\.mjs$/ }, ({ path }) => ({ contents: embedded(readFileSync(path, "utf8")) }));
        bundle.onResolve({ filter: /^inlined:/ }, ({ path }) => ({ path, namespace: "inlined" }));
        bundle.onLoad({ filter: /.*/, namespace: "inlined" }, ({ path }) => ({
          contents: inlined[path],
          loader: "text",
        }));
      },
    },
  ],
  ...more,
});

export async function build_package() {
  for (const name of ["engine.mjs", "decoder.wasm", ...kModules]) {
    if (!existsSync(join(compiled, name)))
      fail(`build/wasm/wasm/${name} is missing.`, "Build the module first: npm run build -- module");
  }
  mkdirSync(join(root, "build"), { recursive: true });
  check_glue();
  // Built aside and moved into place, so that a failed or interrupted build leaves the last good one.
  const fresh = mkdtempSync(join(root, "build", "package-"));
  try {
    await bundle(fresh);
    declare(fresh);
    for (const name of kModules) copyFileSync(join(compiled, name), join(fresh, name));
    chmodSync(fresh, 0o755); // mkdtemp gives a private folder
    rmSync(dist, { recursive: true, force: true });
    renameSync(fresh, dist);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

/// Both modules run with one script, so both must have been given the same: names of files apart, and what the linker
/// calls the imports and exports, which is the same as long as the same functions are used.
function check_glue() {
  const [strict, relaxed] = ["engine", "engine-relaxed"].map((name) =>
    readFileSync(join(compiled, `${name}.mjs`), "utf8")
      .replaceAll(`${name}.wasm`, "")
      .replaceAll(`${name}.mjs`, ""),
  );
  if (strict !== relaxed)
    fail(
      "Emscripten's scripts of the two modules differ, and the package has room for one.",
      "Look at wasm/CMakeLists.txt.",
    );
}

async function bundle(outdir) {
  const from = (...names) => names.map((name) => join(source, `${name}.ts`));
  const node = { platform: "node", target: "node20" };
  // A worker's script stands alone; in browsers it is a classic script, which a blob may be everywhere.
  await build(options({ entryPoints: from("worker"), outdir, format: "iife" }));
  await build(options({ entryPoints: from("worker-node"), outdir, ...node }));
  await build(options({ entryPoints: from("index"), outdir, splitting: true, chunkNames: "[name]-[hash]" }));
  // Gzipped inside of the script: a page that is served without compression has the small one too.
  const decoder = gzipSync(readFileSync(join(compiled, "decoder.wasm")), { level: 9 }).toString("base64");
  const with_decoder = { "inlined:decoder": decoder };
  await build(options({ entryPoints: from("decode"), outdir, inlined: with_decoder }));
  await build(
    options({
      entryPoints: from("node", "cli"),
      outdir,
      splitting: true,
      chunkNames: "[name]-[hash]",
      inlined: with_decoder,
      ...node,
    }),
  );

  const wasm = readFileSync(join(compiled, "engine.wasm")).toString("base64");
  const inlined = (worker) => ({ "inlined:wasm": wasm, "inlined:worker": readFileSync(join(outdir, worker), "utf8") });
  await build(options({ entryPoints: from("inline"), outdir, inlined: inlined("worker.js") }));
  await build(options({ entryPoints: from("inline-node"), outdir, inlined: inlined("worker-node.js"), ...node }));
}

/// Declarations import each other without an ending in the sources; published ones must name the file.
function declare(outdir) {
  const all = join(outdir, "declarations");
  run("node", [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", join(root, "wasm"), "--outDir", all], {
    why: "The package's TypeScript does not check.",
  });
  for (const name of kDeclarations) {
    const text = readFileSync(join(all, `${name}.d.ts`), "utf8");
    writeFileSync(join(outdir, `${name}.d.ts`), text.replace(/(from |import\()"(\.\/[\w-]+)"/g, '$1"$2.js"'));
  }
  rmSync(all, { recursive: true });
}
