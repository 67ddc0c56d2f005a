// `npm run bench [-- kernels|compute|run|codec ...]`: how fast the project is, and how small it makes models, beside others
// in the same run; by default everything.
//   kernels  compression's kernels natively, as WebAssembly in Node and in Chromium, and the page
//   compute  matrix products, convolutions and training steps by themselves, beside the registers' peak and plain loops
//   run      running and training networks, beside TensorFlow.js and ONNX Runtime
//   codec    entropy coders: sizes beside general compressors, speed, Deep Compression's recipe, ratios at equal accuracy
// --node, --chromium     only there (natively and the page are left out)
// --only "CASE;CASE"     only these kernels, these models, or "products", "trainings", "inferences"; in compute: only
//                        cases whose names have these parts; in codec: "sizes", "speed", "paper", "accuracy", "trellis"
// --tensors N, --all     how many weights codec takes for its sizes (60, spread over the models); --detail: a line for each
// --trellis              codec also tries what trellis-coded quantization would save (two minutes more than its seven)
// --large MEGABYTES      the kernels' large size; --rounds N: of samples in run, --seconds N at most for each case
// --json FILE            what was measured in compute, run and codec; --built: build nothing, take what is there
// Ratios are of times measured in turns within one run; where the project has set itself a goal, the table says whether it
// was reached. Nothing fails because of a time.
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { setFlagsFromString } from "node:v8";
import { build, cpp_environment } from "./build.mjs";
import { serve } from "./serve.mjs";
import { find_chromium, setup } from "./setup.mjs";
import { fail, is_main, root, run, say } from "./shell.mjs";

const bench_folder = join(root, "tests", "bench");
const built_tests = join(root, "build", "wasm", "tests");

/// Goals in Chromium: case, size, what to divide by what, the least ratio.
const kGoals = [
  { name: "quantize to int8", size: "cached", beside: "copy", least: 0.55 },
  { name: "quantize to int8", size: "streamed", beside: "copy", least: 1.6 },
  { name: "quantize_rows of 1024", size: "cached", beside: "plain", least: 40 },
  { name: "quantize_rows of 1024", size: "streamed", beside: "plain", least: 20 },
  { name: "quantize_groups_of_32", size: "streamed", beside: "copy", least: 1.4 },
  { name: "histogram, 256 bins", size: "cached", beside: "plain", least: 3 },
  { name: "histogram, 256 bins", size: "streamed", beside: "plain", least: 3 },
];
const kKthGoal = 6; // times std::nth_element, 10 million weights
const kPruneGoal = 0.06; // seconds for limit and mask of 10 million weights

const kTitles = { cached: "within the second-level cache (256 KB)", streamed: "beyond the caches" };
const kBeside = { copy: "memcpy", plain: "plain JavaScript" };

/// Prints the tables of one environment. Returns how many goals were missed.
function print(environment, result) {
  let missed = 0;
  const judge = (ratio, least) => {
    if (ratio < least) missed++;
    return `${ratio >= least ? "reached" : "MISSED"} (${ratio.toFixed(2)} of ${least})`;
  };
  for (const size of ["cached", "streamed"]) {
    console.log(`\n${environment}, ${kTitles[size]}: GB/s at 4 bytes an element`);
    const head = ["best", "median", "twin", "memcpy", "plain JS", "x twin", "x memcpy", "x JS"];
    console.log(["".padEnd(26), ...head.map((text) => text.padStart(9)), " goal"].join(""));
    for (const { name, bytes, kernel, twin, copy, plain } of result[size]) {
      const rate = (seconds) => (bytes / seconds / 1e9).toFixed(2);
      const ratio = (other) => (other ? other.best / kernel.best : undefined);
      const cells = [rate(kernel.best), rate(kernel.median), rate(twin.best), rate(copy.best)];
      cells.push(
        plain ? rate(plain.best) : "",
        ratio(twin).toFixed(2),
        ratio(copy).toFixed(2),
        ratio(plain)?.toFixed(1) ?? "",
      );
      const goal = kGoals.find((g) => g.name === name && g.size === size);
      const verdict = goal
        ? `  x ${kBeside[goal.beside]}: ${judge(ratio({ copy, plain }[goal.beside]), goal.least)}`
        : "";
      console.log([name.padEnd(26), ...cells.map((text) => text.padStart(9)), verdict].join(""));
    }
  }
  const { kth, nth_element, kth_and_mask, apply } = result.pruning;
  const ms = (seconds) => `${(seconds * 1000).toFixed(1)} ms`;
  console.log(`\n${environment}, 10 million weights, best of 5:`);
  console.log(
    `  kth_magnitude ${ms(kth.best)}, std::nth_element ${ms(nth_element.best)}: ${judge(nth_element.best / kth.best, kKthGoal)}`,
  );
  const in_time = kth_and_mask.best <= kPruneGoal;
  if (!in_time) missed++;
  console.log(
    `  limit and mask ${ms(kth_and_mask.best)}: ${in_time ? "reached" : "MISSED"} (at most ${ms(kPruneGoal)})`,
  );
  console.log(`  applying the mask ${ms(apply.best)}`);
  return missed;
}

/// Opens a page of this project's files in Chromium and gives what `work(page, address)` gives; `address` turns a file of
/// the project into the page's address of it. `extra` are further files by their name below /extra/.
async function in_page(work, extra = new Map()) {
  const { chromium } = await import("playwright-core");
  const program = find_chromium();
  if (!program)
    fail("No Chromium was found.", "Install it (apt-get install chromium), or set CHROMIUM to its program.");
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : []; // Chromium refuses to sandbox the root user
  const { server, url } = await serve(root, 4300);
  const browser = await chromium.launch({ executablePath: program, args: sandbox });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => say(`Chromium: ${message.text()}`));
    // Isolated pages get a clock of 5 microseconds where others get one of 100.
    await page.route("**/*", async (route) => {
      const response = await route.fetch();
      const isolated = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
      await route.fulfill({ response, headers: { ...response.headers(), ...isolated } });
    });
    await page.route("**/extra/*", (route) => {
      const name = decodeURIComponent(new URL(route.request().url()).pathname.slice("/extra/".length));
      return extra.has(name) ? route.fulfill({ path: extra.get(name) }) : route.fulfill({ status: 404 });
    });
    // Any file of the server gives the page the right origin; everything else is loaded by scripts.
    await page.goto(`${url}package.json`);
    return await work(page, (file) => new URL(file.slice(root.length + 1).replaceAll("\\", "/"), url).href, url);
  } finally {
    await browser.close();
    server.close();
  }
}

// --- kernels ----------------------------------------------------------------------------------------------------------

async function kernels_in_node(module, options) {
  const { measure_all } = await import(pathToFileURL(join(bench_folder, "kernels_bench.mjs")).href);
  const { default: create_module } = await import(pathToFileURL(module).href);
  return measure_all(create_module, { ...options, say: (part) => say(`Node: ${part}`) });
}

function kernels_in_chromium(module, options) {
  return in_page((page, address) =>
    page.evaluate(
      async ({ bench, compiled, chosen }) => {
        const { measure_all } = await import(bench);
        const { default: create_module } = await import(compiled);
        return measure_all(create_module, { ...chosen, say: (part) => console.log(part) });
      },
      { bench: address(join(bench_folder, "kernels_bench.mjs")), compiled: address(module), chosen: options },
    ),
  );
}

async function bench_kernels({ megabytes, only, node, chromium, everywhere, built }) {
  const options = { large: megabytes << 20, only };
  if (!built) {
    await build("native");
    await build("wasm");
  }
  const module = join(built_tests, "bench_module.mjs");
  if (!existsSync(module)) fail("The benchmarks were not built.", "Configure the wasm preset with NIBBLE_BENCH=ON.");

  if (everywhere) {
    console.log("Native");
    run(join(root, "build", "native", "tests", "bench_kernels"), [String(megabytes)]);
  }
  if (node) print("WebAssembly in Node", await kernels_in_node(module, options));
  if (chromium) {
    const missed = print("WebAssembly in Chromium", await kernels_in_chromium(module, options));
    console.log(missed === 0 ? "\nAll goals were reached in Chromium." : `\n${missed} goals were missed in Chromium.`);
  }
  if (!everywhere) return;

  console.log("\nThe page in Chromium");
  if (!built) {
    await build("package");
    await build("page");
  }
  run(process.execPath, [join(bench_folder, "page_latency.mjs")], {
    cwd: root,
    env: { CHROMIUM: find_chromium() },
    may_fail: true, // a missed goal is printed, and is no reason to stop
  });
}

// --- compute ----------------------------------------------------------------------------------------------------------

/// The modules of compute_bench.cpp by build. Returns {strict, relaxed}: their scripts.
async function compute_modules(built) {
  if (!built) {
    await build("module"); // which configures, too
    const targets = ["compute_module_strict", "compute_module_relaxed"];
    const args = ["--build", join(root, "build", "wasm"), "--target", ...targets, "--parallel"];
    run("cmake", args, { cwd: root, env: cpp_environment(), why: "The benchmarks could not be built." });
  }
  const modules = Object.fromEntries(
    ["strict", "relaxed"].map((build) => [build, join(built_tests, `compute_module_${build}.mjs`)]),
  );
  for (const file of Object.values(modules)) {
    if (!existsSync(file)) fail(`${file} was not built.`, "Configure the wasm preset with NIBBLE_BENCH=ON.");
  }
  return modules;
}

/// Node 20 has relaxed SIMD behind a flag, which later versions do not know.
function allow_relaxed() {
  if (Number(process.versions.node.split(".")[0]) > 20) return;
  setFlagsFromString("--experimental-wasm-relaxed-simd");
  say("this Node has relaxed SIMD behind --experimental-wasm-relaxed-simd, which is on for the measurement");
}

const compute_script = join(bench_folder, "compute_bench.mjs");

async function compute_in_node(file, only) {
  const { measure_all } = await import(pathToFileURL(compute_script).href);
  const { default: create_module } = await import(pathToFileURL(file).href);
  const wanted = (name) => !only || only.some((part) => name.includes(part));
  return measure_all(create_module, { wanted, say: (part) => say(`Node: ${part}`) });
}

function compute_in_chromium(file, only) {
  return in_page((page, address) =>
    page.evaluate(
      async ({ bench, compiled, only }) => {
        const { measure_all } = await import(bench);
        const { default: create_module } = await import(compiled);
        const wanted = (name) => !only || only.some((part) => name.includes(part));
        return measure_all(create_module, { wanted, say: (part) => console.log(part) });
      },
      { bench: address(compute_script), compiled: address(file), only },
    ),
  );
}

async function bench_compute({ only, node, chromium, built }) {
  const modules = await compute_modules(built);
  const { print_compute } = await tables();
  const results = {};
  const places = [node && ["node", "Node", compute_in_node], chromium && ["chromium", "Chromium", compute_in_chromium]];
  for (const [key, name, measure] of places.filter(Boolean)) {
    if (key === "node") allow_relaxed();
    results[key] = {};
    for (const [build, file] of Object.entries(modules)) {
      const { cases } = await measure(file, only);
      print_compute(`${name}, ${build}`, cases);
      results[key][build] = cases;
    }
  }
  return results;
}

// --- run --------------------------------------------------------------------------------------------------------------

/// Models of the data folder, and the extents of their input where the file leaves them open.
const kModels = [
  { name: "mnist-8" },
  { name: "ort-cnn_mnist_pytorch" },
  { name: "winml-imageclassifier-cifar", dims: [1, 3, 32, 32] },
  { name: "blazeface-front_128x128" },
  { name: "yunet_n_320" },
  { name: "fastestdet" },
  { name: "ultraface-version-RFB-320" },
  { name: "qonnx-espcn-float_model" },
  { name: "super_resolution-10", dims: [1, 1, 224, 224] },
  { name: "ppocr-v2-cls", dims: [1, 3, 48, 192] },
  { name: "ppocr-v2-det", dims: [1, 3, 320, 320] },
  { name: "winml-squeezenet-2.9MB", dims: [1, 3, 227, 227] },
  { name: "mobilenetv2-int8-test", dims: [1, 3, 244, 244] },
];

/// Where the WebAssembly files of TensorFlow.js are.
const tfjs_folder = join(root, "node_modules", "@tensorflow", "tfjs-backend-wasm", "dist", "/");

const kParts = ["products", "trainings", "inferences"];

/// The sample models of the page, and those of the data folder that are there: [{name, file, dims}].
function models_at_hand() {
  const samples = ["simplenet", "lenet-300-100"].map((name) => ({
    name: `sample ${name}`,
    file: join(root, "web", "public", "samples", `${name}.onnx`),
  }));
  const folders = [process.env.NIBBLE_DATA, join(root, "..", "shared", "data")];
  const folder = folders.find((path) => path && existsSync(join(path, "onnx")));
  if (!folder) {
    say("there is no folder of real models (NIBBLE_DATA names it): only the samples are run");
    return samples;
  }
  const real = kModels.map(({ name, dims }) => ({ name, dims, file: join(folder, "onnx", name, "model.onnx") }));
  for (const { name } of real.filter(({ file }) => !existsSync(file))) say(`${name} is not in ${folder}: left out`);
  return [...samples, ...real.filter(({ file }) => existsSync(file))];
}

/// The measuring script with what it imports, for one environment. Returns its file.
async function bundled(platform) {
  const outfile = join(root, "build", "bench", `run_${platform}.mjs`);
  const node = platform === "node";
  const { build: bundle } = await import("esbuild"); // which is not there before setup()
  mkdirSync(join(root, "build", "bench"), { recursive: true });
  await bundle({
    entryPoints: [join(bench_folder, "run_bench.mjs")],
    bundle: true,
    outfile,
    format: "esm",
    platform,
    logLevel: "error",
    mainFields: ["module", "main"], // TensorFlow.js built for Node is ECMAScript 5, and has no gradients
    banner: node
      ? { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' }
      : {},
    define: node ? { __dirname: '""' } : {}, // where Emscripten's script is, which is told where its files are
  });
  return outfile;
}

async function run_in_node(modules, options) {
  allow_relaxed();
  const { measure_run } = await import(pathToFileURL(await bundled("node")).href);
  const { load } = await import(pathToFileURL(join(root, "wasm", "dist", "node.js")).href);
  const ort = await import("onnxruntime-web");
  const compute = {};
  for (const [build, file] of Object.entries(modules)) {
    compute[build] = await (await import(pathToFileURL(file).href)).default();
  }
  const read = async (file) => new Uint8Array(readFileSync(file));
  return measure_run({ ...options, load, ort, tfjs_folder, compute, read, say: (part) => say(`Node: ${part}`) });
}

async function run_in_chromium(modules, { models, ...options }) {
  const extra = new Map(models.map(({ file }, index) => [`${index}`, file]));
  const script = await bundled("browser");
  return in_page(async (page, address, url) => {
    const places = {
      bench: address(script),
      package: address(join(root, "wasm", "dist", "index.js")),
      ort: address(join(root, "node_modules", "onnxruntime-web", "dist", "ort.wasm.min.mjs")),
      tfjs: address(tfjs_folder),
      modules: Object.fromEntries(Object.entries(modules).map(([build, file]) => [build, address(file)])),
      models: models.map(({ name, dims }, index) => ({ name, dims, file: `${url}extra/${index}` })),
    };
    return page.evaluate(
      async ({ places, options }) => {
        const { measure_run } = await import(places.bench);
        const { load } = await import(places.package);
        const ort = await import(places.ort);
        ort.env.wasm.wasmPaths = new URL("./", places.ort).href;
        const compute = {};
        for (const [build, file] of Object.entries(places.modules))
          compute[build] = await (await import(file)).default();
        const read = async (file) => new Uint8Array(await (await fetch(file)).arrayBuffer());
        const say = (part) => console.log(part);
        return measure_run({
          ...options,
          models: places.models,
          load,
          ort,
          tfjs_folder: places.tfjs,
          compute,
          read,
          say,
        });
      },
      { places, options },
    );
  }, extra);
}

const tables = () => import(pathToFileURL(join(bench_folder, "run_tables.mjs")).href);

async function bench_run({ only, node, chromium, built, limits }) {
  const modules = await compute_modules(built);
  if (!built) await build("package");
  const { print_legend, print_run } = await tables();
  const at_hand = models_at_hand();
  const named = at_hand.filter(({ name }) => only?.includes(name));
  const parts = only
    ? kParts.filter((part) => only.includes(part) || (part === "inferences" && named.length > 0))
    : kParts;
  if (parts.length === 0)
    return say(`--only names nothing of run; there are ${[...kParts, ...at_hand.map(({ name }) => name)].join("; ")}`);
  const options = { parts, models: named.length > 0 ? named : at_hand, limits };
  const busy = () => `${loadavg()[0].toFixed(1)} programs at work`;

  const results = {};
  const places = [node && ["node", "Node", run_in_node], chromium && ["chromium", "Chromium", run_in_chromium]];
  for (const [key, name, measure] of places.filter(Boolean)) {
    const before = busy();
    results[key] = await measure(modules, options);
    const missed = print_run(name, results[key]);
    console.log(
      `\n${name}: ${missed === 0 ? "all goals were reached" : `${missed} goals were missed`}. Before: ${before}; after: ${busy()}.`,
    );
  }
  print_legend();
  return results;
}

// --- codec ------------------------------------------------------------------------------------------------------------

const kCodecParts = ["sizes", "speed", "paper", "accuracy", "trellis"];
const samples_folder = join(root, "web", "public", "samples");
const sample_file = (name) => join(samples_folder, `${name}.onnx`);

/// All ONNX models at hand, the page's samples first: [{name, file, external}].
function all_models() {
  const samples = readdirSync(samples_folder)
    .filter((name) => name.endsWith(".onnx"))
    .map((name) => ({ name: name.slice(0, -".onnx".length), file: join(samples_folder, name) }));
  const folders = [process.env.NIBBLE_DATA, join(root, "..", "shared", "data")];
  const data = folders.find((path) => path && existsSync(join(path, "onnx")));
  if (!data) {
    say("there is no folder of real models (NIBBLE_DATA names it): only the samples are measured");
    return samples;
  }
  const real = readdirSync(join(data, "onnx")).flatMap((name) => {
    const folder = join(data, "onnx", name);
    const names = readdirSync(folder);
    const file = names.find((entry) => entry.endsWith(".onnx"));
    const external = names.filter((entry) => /\.(bin|data)$/.test(entry)).map((entry) => join(folder, entry));
    return file ? [{ name, file: join(folder, file), external }] : [];
  });
  return [...samples, ...real];
}

async function codec_module(built) {
  const file = join(built_tests, "codec_module.mjs");
  if (!built) {
    await build("module"); // which configures, too
    const args = ["--build", join(root, "build", "wasm"), "--target", "codec_module", "--parallel"];
    run("cmake", args, { cwd: root, env: cpp_environment(), why: "The benchmark could not be built." });
  }
  if (!existsSync(file)) fail(`${file} was not built.`, "Configure the wasm preset with NIBBLE_BENCH=ON.");
  return file;
}

const speed_script = join(bench_folder, "codec_bench.mjs");
const fflate_folder = join(root, "node_modules", "fflate", "esm");
const kSpeedRounds = 7;

async function speed_in_node(file) {
  const { measure_speed } = await import(pathToFileURL(speed_script).href);
  const { default: create_module } = await import(pathToFileURL(file).href);
  const fflate = await import(pathToFileURL(join(fflate_folder, "index.mjs")).href);
  return measure_speed(create_module, fflate, { rounds: kSpeedRounds, say: (part) => say(`Node: ${part}`) });
}

function speed_in_chromium(file) {
  return in_page((page, address) =>
    page.evaluate(
      async ({ bench, compiled, fflate, rounds }) => {
        const { measure_speed } = await import(bench);
        const { default: create_module } = await import(compiled);
        return measure_speed(create_module, await import(fflate), { rounds, say: (part) => console.log(part) });
      },
      {
        bench: address(speed_script),
        compiled: address(file),
        fflate: address(join(fflate_folder, "browser.js")),
        rounds: kSpeedRounds,
      },
    ),
  );
}

async function bench_codec({ only, node, chromium, built, tensors, detail, trellis }) {
  const parts = only
    ? kCodecParts.filter((part) => only.includes(part))
    : kCodecParts.filter((part) => part !== "trellis" || trellis);
  if (parts.length === 0) return say(`--only names nothing of codec; there are ${kCodecParts.join("; ")}`);
  const print = await import(pathToFileURL(join(bench_folder, "codec_tables.mjs")).href);
  const sizes = await import(pathToFileURL(join(bench_folder, "codec_sizes.mjs")).href);
  const results = {};

  if (parts.includes("speed")) {
    const file = await codec_module(built);
    results.speed = {};
    const places = [node && ["node", "Node", speed_in_node], chromium && ["chromium", "Chromium", speed_in_chromium]];
    for (const [key, name, measure] of places.filter(Boolean)) {
      results.speed[key] = await measure(file);
      const missed = print.print_speed(name, results.speed[key]);
      console.log(`\n${name}: ${missed === 0 ? "all goals were reached" : `${missed} goals were missed`}.`);
    }
  }
  if (parts.length === 1 && parts[0] === "speed") return results;

  if (!built) {
    await build("module");
    await build("package");
  }
  const { load } = await import(pathToFileURL(join(root, "wasm", "dist", "node.js")).href);
  const engine = await load();
  try {
    if (parts.includes("sizes")) {
      results.sizes = await sizes.measure_sizes(engine, all_models(), tensors, say);
      print.print_sizes(results.sizes, detail);
    }
    if (parts.includes("paper")) {
      results.paper = await sizes.measure_paper(engine, sample_file);
      print.print_paper(results.paper);
    }
    if (parts.includes("accuracy")) {
      results.accuracy = await sizes.measure_accuracy(engine, sample_file, say);
      print.print_accuracy(results.accuracy);
    }
    if (parts.includes("trellis")) {
      const { measure_trellis, synthetic } = await import(pathToFileURL(join(bench_folder, "trellis.mjs")).href);
      const sources = ["normal", "laplacian"].map((kind) => ({
        name: `${kind} values`,
        rest: 0,
        tensors: [synthetic(kind, 1 << 16)],
      }));
      for (const name of ["lenet-5", "resnet-8"]) sources.push(await sizes.weights_of(engine, name, sample_file(name)));
      results.trellis = measure_trellis(sources, say);
      print.print_trellis(results.trellis);
    }
  } finally {
    engine.close();
  }
  return results;
}

// --- What is asked for ------------------------------------------------------------------------------------------------

const kBenchmarks = ["kernels", "compute", "run", "codec"];

async function bench() {
  const text = { type: "string" };
  const flag = { type: "boolean" };
  let values, positionals;
  try {
    ({ values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        node: flag,
        chromium: flag,
        built: flag,
        only: text,
        large: text,
        rounds: text,
        seconds: text,
        json: text,
        tensors: text,
        all: flag,
        detail: flag,
        trellis: flag,
      },
    }));
  } catch (error) {
    fail(error.message, "The top of .tools/bench.mjs says what there is.");
  }
  const odd = positionals.find((name) => !kBenchmarks.includes(name));
  if (odd) fail(`There is no benchmark "${odd}".`, `Choose from ${kBenchmarks.join(", ")}.`);
  const number = (name, standard, least, most) => {
    const value = Number(values[name] ?? standard);
    if (!(value >= least && value <= most)) fail(`--${name}: expected ${least} to ${most}, got ${values[name]}`);
    return value;
  };
  const everywhere = !values.node && !values.chromium;
  const options = {
    megabytes: number("large", 128, 1, 512),
    only: values.only?.split(";"),
    node: everywhere || values.node,
    chromium: everywhere || values.chromium,
    everywhere,
    built: values.built,
    // A sample lasts about `least` seconds, and everything runs for `warm` seconds first.
    limits: { rounds: number("rounds", 25, 3, 1000), seconds: number("seconds", 6, 0.1, 600), least: 0.01, warm: 0.5 },
    tensors: values.all ? Infinity : number("tensors", 60, 1, 1e6),
    detail: values.detail,
    trellis: values.trellis,
  };
  setup();
  const wants = (name) => positionals.length === 0 || positionals.includes(name);
  if (wants("kernels")) await bench_kernels(options);
  const results = {};
  if (wants("compute")) results.compute = await bench_compute(options);
  if (wants("run")) results.run = await bench_run(options);
  if (wants("codec")) results.codec = await bench_codec(options);
  if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
}

if (is_main(import.meta.url)) await bench();
