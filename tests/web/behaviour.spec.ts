// What a model does, as a user meets it: the built page in Chromium with the real engine and real models.
import { readFile } from "node:fs/promises";
import { load } from "nibble-nn";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { runModel } from "../fixtures/runtime";
import { drop, site, type Site, type Visit } from "./browser";

let pages: Site;
let visit: Visit;
beforeAll(async () => void (pages = await site()));
afterAll(() => pages?.close());
afterEach(() => visit?.page.context().close());

const headline = (page: Page) => page.locator("[data-testid=headline]");
const read = async (page: Page): Promise<{ before: number; after: number; samples: number }> => {
  await page.locator("[data-testid=headline][data-after]").waitFor();
  const { before, after, samples } = await headline(page).evaluate((element) => ({ ...element.dataset }));
  return { before: Number(before), after: Number(after), samples: Number(samples) };
};

/** Waits until accuracy after is another than it was. */
async function another(page: Page, was: number): Promise<number> {
  await page.waitForFunction((old) => {
    const now = document.querySelector<HTMLElement>("[data-testid=headline]");
    return now?.dataset.after !== undefined && Number(now.dataset.after) !== old;
  }, was);
  return (await read(page)).after;
}

test("every sample model runs, and knows most of what it has never seen", async () => {
  const { SAMPLES } = await import("../../web/src/samples");
  visit = await pages.open();
  const { page } = visit;
  await read(page);
  for (const { id, name, data } of SAMPLES.slice(2)) {
    await page.locator("[data-control=sample_model]").selectOption(id);
    await page.locator(".top .file strong", { hasText: `${id}.onnx` }).waitFor();
    if (data.kind === "linear") await page.locator(".headline", { hasText: "Mean squared error" }).waitFor();
    else expect([name, (await read(page)).before > 0.95]).toEqual([name, true]);
  }
  expect(visit.complaints).toEqual([]);
});

test("an address names the part of the page that is looked at", async () => {
  visit = await pages.open();
  const { page } = visit;
  await read(page);
  await view(page, "Activations");
  await page.waitForFunction(() => location.hash.includes("view=activations"));
  await page.reload();
  await page.locator("[data-chart=maps] canvas").first().waitFor();
  expect(visit.complaints).toEqual([]);
});

const setSlider = (page: Page, control: string, position: number): Promise<void> =>
  page.locator(`input[data-control=${control}]`).evaluate((input: HTMLInputElement, to) => {
    input.value = String(to);
    input.dispatchEvent(new InputEvent("input", { bubbles: true }));
  }, position);
const view = (page: Page, name: string): Promise<void> => page.getByRole("tab", { name }).click();
const training = (page: Page) => page.locator("[data-testid=training]");
const step = async (page: Page): Promise<number> => Number(await training(page).getAttribute("data-step"));
const phase = (page: Page, name: string): Promise<void> =>
  page.locator(`[data-testid=training][data-phase=${name}]`).waitFor();

test("a sample model comes with digits and its accuracy; two bits lower it, and samples flip", async () => {
  visit = await pages.open();
  const { page } = visit;
  const first = await read(page);
  expect(first.before).toBeGreaterThan(0.9);
  expect(Math.abs(first.after - first.before)).toBeLessThan(0.02); // 8 bits
  expect(Number(await page.locator("[data-testid=data]").getAttribute("data-samples"))).toBe(2000);
  await setSlider(page, "bits", 1); // 2 bits
  const low = await another(page, first.after);
  expect(low).toBeLessThan(first.before - 0.02);
  await headline(page).click();
  await page.locator("[data-testid=flips]:not([data-count='0'])").waitFor();
  const flips = page.locator("[data-testid=flips] .flip-list button");
  expect(await flips.count()).toBeGreaterThan(0);
  expect(await page.locator("[data-testid=summary]").innerText()).toContain("Accuracy fell");
  // A flip is looked into: its own sample, with the layers' activations.
  const name = await flips.first().getAttribute("aria-label");
  await flips.first().click();
  const index = /sample (\d+)/.exec(name!)![1];
  await page.getByText(`Sample ${index}, true class`).waitFor();
  expect(await page.locator("[data-chart=maps] canvas").count()).toBeGreaterThan(1);
  expect(visit.complaints).toEqual([]);
});

test("the charts of what a model does have a text, a table and names, in every view", async () => {
  visit = await pages.open({ hash: "#lang=en&quantize=bits:3&layer=conv1.weight" });
  const { page } = visit;
  await read(page);
  for (const [tab, charts] of [
    ["Behaviour", ["confusion"]],
    ["Activations", ["through"]],
    ["Draw", []],
    ["Train", []],
  ] as const) {
    await view(page, tab);
    for (const chart of charts) {
      const card = page.locator(`[data-chart=${chart}]`);
      expect((await card.locator("canvas").getAttribute("aria-label"))!.length).toBeGreaterThan(30);
      await card.getByRole("button", { name: "Show as table" }).click();
      expect(await card.locator("tbody tr").count()).toBeGreaterThan(5);
      await card.getByRole("button", { name: "Show as picture" }).click();
    }
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll<HTMLElement>("button, input, select, [role=img], [tabindex='0']")]
        .filter((element) => !(element as HTMLInputElement).hidden && element.getClientRects().length > 0)
        .filter((element) => {
          const labels = [...((element as HTMLInputElement).labels ?? [])].map((label) => label.textContent).join("");
          return !(element.getAttribute("aria-label") || element.textContent?.trim() || labels.trim());
        })
        .map((element) => element.outerHTML),
    );
    expect(nameless).toEqual([]);
    const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map(({ id }) => id));
    expect(new Set(ids).size).toBe(ids.length);
  }
  // The tabs are one stop of the keyboard, and the arrows move among them.
  await page.getByRole("tab", { name: "Train" }).focus();
  await page.keyboard.press("ArrowLeft");
  expect(await page.getByRole("tab", { name: "Draw" }).getAttribute("aria-selected")).toBe("true");
  await page.keyboard.press("Home");
  await page.locator("[data-chart=histogram]").waitFor();
  expect(visit.complaints).toEqual([]);
});

test.each([
  ["en", 320],
  ["zh", 320],
  ["en", 820],
])("nothing of it sticks out sideways: %s at %i pixels", async (language, width) => {
  visit = await pages.open({ viewport: { width, height: 700 }, hash: `#lang=${language}&quantize=bits:2` });
  const { page } = visit;
  await read(page);
  for (const name of ["mistakes", "activations", "draw", "train", "layer"]) {
    await page.locator(`[data-view=${name}]`).click();
    await page.waitForTimeout(100);
    const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    expect([name, content]).toEqual([name, Math.min(content!, screen!)]);
  }
  await page.locator("[data-testid=data] summary").click();
  const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  expect(content).toBeLessThanOrEqual(screen!);
  expect(visit.complaints).toEqual([]);
});

test("a digit that is drawn is recognised while it is drawn, before and after", async () => {
  visit = await pages.open({ hash: "#lang=en" });
  const { page } = visit;
  await read(page);
  await view(page, "Draw");
  const pad = (await page.locator("[data-testid=pad]").boundingBox())!;
  const at = (x: number, y: number): [number, number] => [
    pad.x + (x / 280) * pad.width,
    pad.y + (y / 280) * pad.height,
  ];
  // A one: a line that leans a little.
  await page.mouse.move(...at(155, 45));
  await page.mouse.down();
  await page.mouse.move(...at(130, 235), { steps: 12 });
  await page.mouse.up();
  const rows = page.locator("[data-testid=guesses] tbody tr");
  await rows.first().waitFor();
  await page.locator("[data-testid=guesses][aria-busy=false]").waitFor();
  expect(await rows.count()).toBe(10);
  const shares = await page
    .locator("[data-testid=guesses] td:nth-of-type(2) .bar")
    .evaluateAll((bars) => bars.map((bar) => Number.parseFloat((bar as HTMLElement).style.width)));
  expect(shares.reduce((a, b) => a + b, 0)).toBeCloseTo(100, 1);
  expect(await page.locator("[data-testid=guesses] tr.best th").innerText()).toBe("1");
  await page.getByRole("button", { name: "Clear" }).click();
  await rows.first().waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Take a sample" }).click();
  await rows.first().waitFor();
  expect(visit.complaints).toEqual([]);
});

test("a new network is trained: the curve grows, pause and go on, and it becomes the page's model", async () => {
  visit = await pages.open({ hash: "#lang=en&data=digits,seed:3,n:4000" });
  const { page } = visit;
  await read(page);
  await view(page, "Train");
  await page.locator("[data-control=train_from] option[value='new:simplenet']").waitFor({ state: "attached" });
  await page.locator("[data-control=train_from]").selectOption("new:simplenet");
  await setSlider(page, "epochs", 1); // 2 epochs
  // Paused by the page itself as soon as it may be: a test's click first waits for the button to hold still.
  await page.evaluate(() => {
    new MutationObserver((_, observer) => {
      const now = document.querySelector<HTMLElement>("[data-testid=training]");
      const pause = [...document.querySelectorAll("button")].find((button) => button.textContent === "Pause");
      if (!pause || !(Number(now?.dataset.step) > 2)) return;
      observer.disconnect();
      pause.click();
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  await page.getByRole("button", { name: "Start training" }).click();
  await phase(page, "paused");
  const stood = await step(page);
  await page.waitForTimeout(400);
  expect(await step(page)).toBe(stood);
  // Everything else still answers.
  const before = (await read(page)).after;
  await setSlider(page, "bits", 0);
  await another(page, before);
  await page.getByRole("button", { name: "Go on" }).click();
  await phase(page, "done");
  expect(await step(page)).toBeGreaterThan(stood);
  const curve = page.locator("[data-chart=loss_curve]");
  expect(await curve.locator("canvas").getAttribute("aria-label")).toMatch(/Loss over \d+ batches, from/);
  await curve.getByRole("button", { name: "Show as table" }).click();
  expect(await curve.locator("tbody tr").count()).toBe(2);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator(".top .file strong", { hasText: "simplenet.trained.onnx" }).waitFor();
  expect((await read(page)).before).toBeGreaterThan(0.8);
  expect(await page.locator("[data-testid=share]").innerText()).toMatch(/^\d+ % of 8\d\.\d KB/);
  // What is downloaded is the trained model, compressed: ONNX Runtime sees the digits that the page says it sees.
  await setSlider(page, "bits", 7); // 8 bits
  await page.waitForFunction(() => document.querySelector("[data-step=quantize] output")?.textContent === "8");
  const [file] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Download", exact: true }).click(),
  ]);
  expect(file.suggestedFilename()).toBe("simplenet.trained.small.onnx");
  const saved = new Uint8Array(await readFile(await file.path()));
  const engine = await load();
  const data = await engine.data({ kind: "digits", seed: 9, n: 50 });
  const { values, labels } = await data.samples(Array.from({ length: 50 }, (_, i) => i));
  const { scale, mean, std } = await (await engine.open(saved)).prepare(data);
  engine.close();
  const pixels = Float32Array.from(values, (value) => (value * scale - mean[0]!) / std[0]!);
  const logits = Array.from(
    await runModel(saved, { input: { type: "float32", dims: [50, 1, 28, 28], data: pixels } }),
    Number,
  );
  const saying = (i: number): number => {
    const row = logits.slice(i * 10, i * 10 + 10);
    return row.indexOf(Math.max(...row));
  };
  const right = labels.filter((label, i) => saying(i) === label).length;
  expect(right).toBeGreaterThan(40);
  expect(visit.complaints).toEqual([]);
});

test("a recipe that trains is run when it is asked to, and gains what pruning lost", async () => {
  visit = await pages.open({
    hash: "#lang=en&data=digits,seed:2,n:3000&prune=sparsity:0.9&quantize=off,bits:8&train=epochs:2,learning_rate:0.002",
  });
  const { page } = visit;
  const pruned = await read(page);
  expect(pruned.after).toBeLessThan(pruned.before - 0.05);
  await page.locator("[data-control=run]").click();
  const tuned = await another(page, pruned.after);
  expect(tuned).toBeGreaterThan(pruned.after + 0.03);
  expect(await page.locator("[data-step=train]").innerText()).toContain("What learns from data is in these numbers.");
  // What was pruned is still zero.
  expect(await page.locator(".layers tfoot .zeros").innerText()).toMatch(/^(89|90|9\d\.?\d*) %/);
  expect(visit.complaints).toEqual([]);
});

test("a regression is trained and judged by its mean squared error", async () => {
  visit = await pages.open({ hash: "#lang=en&data=linear,seed:1,n:1000" });
  const { page } = visit;
  await page.getByText("The data does not fit.").waitFor(); // digits' model, other data
  await view(page, "Train");
  await page.locator("[data-control=train_from] option[value='new:linear']").waitFor({ state: "attached" });
  await page.locator("[data-control=train_from]").selectOption("new:linear");
  await page.getByRole("button", { name: "Start training" }).click();
  await phase(page, "done");
  expect(await page.locator("[data-chart=accuracy_curve]").count()).toBe(0);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.locator(".top .file strong", { hasText: "linear.trained.onnx" }).waitFor();
  await page.locator(".headline", { hasText: "Mean squared error" }).waitFor();
  await view(page, "Behaviour");
  expect(await page.locator("[data-testid=summary]").innerText()).toMatch(
    /Mean squared error\s+[\d.]+\s*before [\d.]+/,
  );
  expect(visit.complaints).toEqual([]);
});

/** IDX: two zeros, the type (8: bytes), the number of dimensions, each dimension, the values. */
function idx(dimensions: number[], values: Uint8Array): Uint8Array {
  const head = new DataView(new ArrayBuffer(4 + 4 * dimensions.length));
  head.setUint32(0, 0x0800 + dimensions.length);
  dimensions.forEach((size, i) => head.setUint32(4 + 4 * i, size));
  return Uint8Array.from([...new Uint8Array(head.buffer), ...values]);
}

test("data of the user are read, said to be what they are, and can be removed", async () => {
  visit = await pages.open();
  const { page } = visit;
  await read(page);
  const n = 60;
  const labels = Uint8Array.from({ length: n }, (_, i) => i % 10);
  const images = Uint8Array.from({ length: n * 784 }, (_, i) => (i * 31 + Math.floor(i / 784) * 7) % 256);
  await drop(page, [
    { name: "t10k-images-idx3-ubyte", bytes: idx([n, 28, 28], images) },
    { name: "t10k-labels-idx1-ubyte", bytes: idx([n], labels) },
  ]);
  await page.locator(`[data-testid=data][data-samples='${n}']`).waitFor();
  expect(await page.locator("[data-testid=data]").innerText()).toContain("60 samples · 28 × 28 · 10 classes");
  await page.locator("[data-testid=headline][data-after]").waitFor();
  await drop(page, [{ name: "broken.npz", bytes: new TextEncoder().encode("no archive") }]);
  expect(await page.getByRole("alert").locator(".trouble").innerText()).toContain("broken.npz");
  expect(Number(await page.locator("[data-testid=data]").getAttribute("data-samples"))).toBe(n);
  await page.getByRole("button", { name: "Remove the data" }).click();
  await page.getByText("No data yet").waitFor();
  await headline(page).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Built-in digits" }).click();
  await read(page);
  expect(visit.complaints).toEqual([]);
});

test("the preparation is said with its reason, and can be changed", async () => {
  visit = await pages.open({ hash: "#lang=en" });
  const { page } = visit;
  const { after } = await read(page);
  await page.locator("[data-testid=data] summary").click();
  const details = page.locator(".data-details");
  expect(await details.innerText()).toContain("input = (stored × scale − mean) / std");
  await page.locator("[data-control=scale]").fill("1");
  await page.locator("[data-control=scale]").press("Tab");
  await page.getByText("as you wrote it").waitFor();
  await another(page, after);
  await page.getByRole("button", { name: "Find it again" }).click();
  await page.waitForFunction(
    (was) => Number(document.querySelector<HTMLElement>("[data-testid=headline]")?.dataset.after) === was,
    after,
  );
  expect(visit.complaints).toEqual([]);
});

test("all of it is there in Chinese", async () => {
  visit = await pages.open({ hash: "#lang=zh&quantize=bits:2" });
  const { page } = visit;
  await read(page);
  expect(await page.getByRole("tab").allInnerTexts()).toEqual(["层", "表现", "激活", "手写", "训练"]);
  for (const [name, text] of [
    ["表现", "准确率下降"],
    ["激活", "误差如何穿过网络"],
    ["手写", "手写板"],
    ["训练", "开始训练"],
  ] as const) {
    await view(page, name);
    const panel = page.locator("#middle-panel");
    await page.waitForFunction((wanted) => document.querySelector("#middle-panel")?.innerHTML.includes(wanted), text);
    // No English but names of values and what the engine itself says.
    const own = await panel.evaluate((element) => {
      const copy = element.cloneNode(true) as HTMLElement;
      for (const part of copy.querySelectorAll("[lang=en], select, table")) part.remove();
      return copy.textContent ?? "";
    });
    expect(
      own.match(/[A-Za-z]{4,}/g)?.filter((word) => !/SQNR|MNIST|Adam|conv|weight|relu|pool/i.test(word)) ?? [],
    ).toEqual([]);
  }
  expect(visit.complaints).toEqual([]);
});
