// `npm run bench [-- --large MEGABYTES --only "CASE;CASE"]`: how fast the kernels are, natively, as WebAssembly in Node
// and in Chromium, one table each. Ratios are of times measured in turns within one run; where the project has set itself a
// goal, the last column says whether Chromium reached it.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "./build.mjs";
import { serve } from "./serve.mjs";
import { find_chromium, setup } from "./setup.mjs";
import { fail, is_main, root, run, say, which } from "./shell.mjs";

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

async function in_node(module, options) {
  const { measure_all } = await import(pathToFileURL(join(root, "tests", "bench", "kernels_bench.mjs")).href);
  const { default: create_module } = await import(pathToFileURL(module).href);
  return measure_all(create_module, { ...options, say: (part) => say(`Node: ${part}`) });
}

async function in_chromium(module, options) {
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
    // Any file of the server gives the page the right origin; everything else is loaded by the script below.
    await page.goto(`${url}package.json`);
    const address = (file) => new URL(file.slice(root.length + 1).replaceAll("\\", "/"), url).href;
    return await page.evaluate(
      async ({ bench, compiled, chosen }) => {
        const { measure_all } = await import(bench);
        const { default: create_module } = await import(compiled);
        return measure_all(create_module, { ...chosen, say: (part) => console.log(part) });
      },
      { bench: address(join(root, "tests", "bench", "kernels_bench.mjs")), compiled: address(module), chosen: options },
    );
  } finally {
    await browser.close();
    server.close();
  }
}

/// The value after `--name` on the command line, or undefined.
function option(name) {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
}

async function bench() {
  const megabytes = Number(option("large") ?? 128);
  if (!(megabytes >= 1 && megabytes <= 512)) fail(`--large: expected 1 to 512 megabytes, got ${option("large")}`);
  const options = { large: megabytes << 20, only: option("only")?.split(";") };
  setup();
  await build("native");
  await build("wasm");
  const module = join(root, "build", "wasm", "tests", "bench_module.mjs");
  if (!existsSync(module)) fail("The benchmarks were not built.", "Configure the wasm preset with NIBBLE_BENCH=ON.");

  console.log("Native");
  run(join(root, "build", "native", "tests", "bench_kernels"), [String(megabytes)]);
  print("WebAssembly in Node", await in_node(module, options));
  const missed = print("WebAssembly in Chromium", await in_chromium(module, options));
  console.log(missed === 0 ? "\nAll goals were reached in Chromium." : `\n${missed} goals were missed in Chromium.`);

  console.log("\nThe page in Chromium");
  await build("package");
  await build("page");
  run(process.execPath, [join(root, "tests", "bench", "page_latency.mjs")], {
    cwd: root,
    env: { CHROMIUM: find_chromium() },
    may_fail: true, // a missed goal is printed, and is no reason to stop
  });
}

if (is_main(import.meta.url)) await bench();
