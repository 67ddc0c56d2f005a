// How long a slider move takes on the built page, in Chromium: from the input event to the frame that shows the new
// numbers and the three new pictures. Alone: `node tests/bench/page_latency.mjs`; the page must have been built.
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { serve } from "../../.tools/serve.mjs";

const root = resolve(fileURLToPath(new URL("../..", import.meta.url)));

/// Weights of the model, its layers (inputs and outputs of matrix products), and the goal.
const kModels = [
  { weights: 430_000, columns: [784, 500, 76], moves: 100, goal_ms: 33 },
  { weights: 10_000_000, columns: [2500, 3200, 625], moves: 20, goal_ms: 400 },
];
const kFirstPaintGoal = 1000; // ms, with the sample model, on this machine's own server

/// The tests' models, which are TypeScript.
async function fixtures() {
  const { outputFiles } = await build({
    entryPoints: [join(root, "tests", "fixtures", "make.ts")],
    bundle: true,
    write: false,
    format: "esm",
  });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}

const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];

/// In the page: moves the sparsity slider `moves` times, each after the last has been painted. Gives milliseconds.
async function measure(moves) {
  const slider = document.querySelector("input[data-control=sparsity]");
  const clear = CanvasRenderingContext2D.prototype.clearRect;
  const pictures = document.querySelectorAll(".canvas-box canvas").length;
  let drawn = new Set();
  let check = () => {};
  CanvasRenderingContext2D.prototype.clearRect = function (...area) {
    drawn.add(this.canvas);
    check();
    return clear.apply(this, area);
  };
  const times = [];
  for (let i = 0; i < moves; i++) {
    drawn = new Set();
    const painted = new Promise((done) => {
      check = () => {
        // A message that is sent inside a frame arrives after that frame has been handed to the screen.
        if (drawn.size === pictures) {
          const { port1, port2 } = new MessageChannel();
          port1.onmessage = () => done(performance.now());
          port2.postMessage(null);
        }
      };
    });
    const start = performance.now();
    slider.value = String(0.2 + (0.6 * ((i * 37) % moves)) / moves);
    slider.dispatchEvent(new InputEvent("input", { bubbles: true }));
    times.push((await painted) - start);
    await new Promise((done) => setTimeout(done, 20));
  }
  CanvasRenderingContext2D.prototype.clearRect = clear;
  return times;
}

/// Measures every model. Returns [{weights, median_ms, slow_ms, goal_ms}] and the first paint.
export async function page_latency({ chromium_path, say = () => {} }) {
  const { chromium } = await import("playwright-core");
  const { matmulNet } = await fixtures();
  const { server, url } = await serve(join(root, "web", "dist"), 4400);
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : []; // Chromium refuses to sandbox the root user
  const browser = await chromium.launch({ executablePath: chromium_path, args: sandbox });
  const folder = await mkdtemp(join(tmpdir(), "nibble-"));
  const results = [];
  try {
    const first = [];
    for (let i = 0; i < 5; i++) {
      const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
      await page.goto(`${url}#lang=en`);
      await page.locator("[data-chart=histogram] canvas").waitFor();
      first.push(
        await page.evaluate(
          () => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now())))),
        ),
      );
      await page.close();
    }
    const first_paint_ms = quantile(
      first.sort((a, b) => a - b),
      0.5,
    );
    for (const { weights, columns, moves, goal_ms } of kModels) {
      say(`${weights} weights`);
      const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
      await page.goto(`${url}#lang=en&seed=0&prune=sparsity:0.5,scope:global&quantize=bits:8`);
      await page.locator("[data-chart=histogram] canvas").waitFor();
      const model = join(folder, "model.onnx");
      await writeFile(model, matmulNet(columns));
      await page.locator("input[type=file]").first().setInputFiles(model);
      await page.locator(".top .file strong", { hasText: "model.onnx" }).waitFor();
      await page.locator("[data-testid=size][data-bytes]").waitFor();
      await page.locator("[data-chart=histogram] canvas").waitFor();
      await page.evaluate(measure, 5); // until the engines have compiled what runs hot
      const times = await page.evaluate(measure, moves);
      const sorted = times.sort((a, b) => a - b);
      results.push({ weights, median_ms: quantile(sorted, 0.5), slow_ms: quantile(sorted, 0.95), goal_ms });
      await page.close();
    }
    return { first_paint_ms, first_paint_goal_ms: kFirstPaintGoal, moves: results };
  } finally {
    await browser.close();
    server.close();
    await rm(folder, { recursive: true });
  }
}

/// Prints the result. Returns how many goals were missed.
export function print_latency({ first_paint_ms, first_paint_goal_ms, moves }) {
  const judge = (value, goal) => `${value <= goal ? "reached" : "MISSED"} (at most ${goal} ms)`;
  console.log("\nThe page in Chromium, milliseconds");
  console.log(
    `  first paint with the sample model, median of 5: ${first_paint_ms.toFixed(0)}: ${judge(first_paint_ms, first_paint_goal_ms)}`,
  );
  for (const { weights, median_ms, slow_ms, goal_ms } of moves) {
    console.log(
      `  slider move to repaint, ${weights.toLocaleString("en")} weights: median ${median_ms.toFixed(1)}, 95th percentile ${slow_ms.toFixed(1)}: ${judge(median_ms, goal_ms)}`,
    );
  }
  return [first_paint_ms > first_paint_goal_ms, ...moves.map((move) => move.median_ms > move.goal_ms)].filter(Boolean)
    .length;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const places = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/google-chrome"];
  const chromium_path = places.find((path) => path && existsSync(path));
  if (!chromium_path) throw new Error("Chromium was not found: set CHROMIUM to its path");
  process.exitCode = print_latency(await page_latency({ chromium_path })) > 0 ? 1 : 0;
}
