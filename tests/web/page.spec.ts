// The page as a user meets it: the built files in Chromium, real models, and ONNX Runtime as the judge of what it saves.
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { decode } from "nibble-nn/decode";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { dataFolder } from "../fixtures/data";
import { convNet, matmulNet } from "../fixtures/make";
import { floats, graph, model, node, value } from "../fixtures/onnx";
import { runModel } from "../fixtures/runtime";
import { weights } from "../fixtures/random";
import { drop, root, site, type Site, type Visit } from "./browser";

let pages: Site;
let visit: Visit;
beforeAll(async () => void (pages = await site()));
afterAll(() => pages?.close());
afterEach(() => visit?.page.context().close());

/** A file of the optional data folder, else one made here. */
function realModel(): { name: string; bytes: Uint8Array; input: string; dims: number[] } {
  const path = dataFolder && join(dataFolder, "onnx", "mnist-8", "model.onnx");
  if (path && existsSync(path))
    return { name: "mnist-8.onnx", bytes: readFileSync(path), input: "Input3", dims: [1, 1, 28, 28] };
  return { name: "conv.onnx", bytes: convNet(), input: "x", dims: [1, 1, 8, 8] };
}

/** The size of the result, once the recipe that is shown has been run. */
async function size(page: Page): Promise<number> {
  await page.locator(".result[aria-busy=false]").waitFor();
  return Number(await page.locator("[data-testid=size]").getAttribute("data-bytes"));
}

/** Waits until the size is another than `old`. */
async function newSize(page: Page, old: number): Promise<number> {
  await page.waitForFunction(
    (was) => Number(document.querySelector("[data-testid=size]")?.getAttribute("data-bytes")) !== was,
    old,
  );
  return size(page);
}

async function opened(page: Page, name: string): Promise<void> {
  await page.locator(".top .file strong", { hasText: name }).waitFor();
  await page.locator("[data-testid=size][data-bytes]").waitFor();
}

/** Waits until nothing has been asked of the network for a second: the lessons come when the page is idle. */
async function rest({ page, requests }: Visit): Promise<void> {
  for (let known = -1; known !== requests.length;) {
    known = requests.length;
    await page.waitForTimeout(1000);
  }
}

const bits = (page: Page) => page.locator("[data-control=bits]");
const setSlider = (page: Page, control: string, position: number): Promise<void> =>
  page.locator(`input[data-control=${control}]`).evaluate((input: HTMLInputElement, to) => {
    input.value = String(to);
    input.dispatchEvent(new InputEvent("input", { bubbles: true }));
  }, position);

async function download(page: Page, which = "download"): Promise<{ name: string; bytes: Uint8Array }> {
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByTestId(which).click()]);
  return { name: file.suggestedFilename(), bytes: await readFile(await file.path()) };
}

test("a dropped model is compressed, and what is downloaded runs in ONNX Runtime", async () => {
  visit = await pages.open();
  const { page } = visit;
  const { name, bytes, input, dims } = realModel();
  await drop(page, [{ name, bytes }]);
  await opened(page, name);
  const at8 = await size(page);
  expect(at8).toBeLessThan(bytes.length);

  await bits(page).focus();
  await page.keyboard.press("ArrowLeft"); // 8 to 7 bits: the file still holds int8, the error grows
  await page.waitForFunction(() => document.querySelector("[data-step=quantize] output")?.textContent === "7");
  await setSlider(page, "bits", 3); // 4 bits
  const at4 = await newSize(page, at8);
  expect(at4).toBeLessThan(at8);
  expect(await page.locator("[data-testid=share]").textContent()).toMatch(/^\d+ % of /);

  const saved = await download(page);
  expect(saved.name).toBe(name.replace(".onnx", ".small.onnx"));
  expect(saved.bytes.length).toBe(at4);
  const feed = {
    [input]: {
      type: "float32" as const,
      dims,
      data: weights(
        dims.reduce((a, b) => a * b),
        1,
        1,
      ),
    },
  };
  const [before, after] = [await runModel(bytes, feed), await runModel(saved.bytes, feed)];
  expect(after.length).toBe(before.length);
  expect(Array.from(after).every(Number.isFinite)).toBe(true);
  expect(Array.from(after)).not.toEqual(Array.from(before));
  expect(visit.complaints).toEqual([]);
});

test("the .nib file has the size that was counted, decodes to what runs, and opens again", async () => {
  visit = await pages.open({ hash: "#lang=en&seed=0&prune=sparsity:0.8&quantize=bits:4&encode=coder:auto" });
  const { page } = visit;
  const { name, bytes, input, dims } = realModel();
  // Noted by the page itself: the estimate is soon replaced.
  const sizes = await page.evaluateHandle((file) => {
    const noted: { estimated?: number; counted?: number } = {};
    new MutationObserver(() => {
      const { bytes: now, counted } = document.querySelector<HTMLElement>("[data-testid=nib-size]")!.dataset;
      if (!now || document.querySelector(".top .file strong")!.textContent !== file) return;
      noted[counted === "true" ? "counted" : "estimated"] ??= Number(now);
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
    return noted;
  }, name);
  await drop(page, [{ name, bytes }]);
  await opened(page, name);
  await page.locator("[data-testid=nib-size][data-counted=true]").waitFor();
  const { estimated, counted } = (await sizes.jsonValue()) as { estimated: number; counted: number };
  expect(Math.abs(estimated / counted - 1)).toBeLessThan(0.02);
  expect(counted).toBeLessThan((await size(page)) / 2);

  const saved = await download(page, "download-nib");
  expect(saved.name).toBe(name.replace(".onnx", ".small.nib"));
  expect(saved.bytes.length).toBe(counted);
  const plain = await download(page);
  const decoded = await decode(saved.bytes, { form: "quantized" });
  expect(Buffer.compare(Buffer.from(decoded), Buffer.from(plain.bytes))).toBe(0);
  const data = weights(
    dims.reduce((a, b) => a * b),
    1,
    1,
  );
  const answer = await runModel(decoded, { [input]: { type: "float32" as const, dims, data } });
  expect(Array.from(answer).every(Number.isFinite)).toBe(true);

  await drop(page, [saved]);
  await opened(page, saved.name);
  expect(visit.complaints).toEqual([]);
});

test("after the page has come to rest nothing is asked of the network", async () => {
  visit = await pages.open();
  const { page, requests } = visit;
  await page.getByRole("button", { name: "Lessons" }).waitFor();
  await rest(visit);
  requests.length = 0;
  const { name, bytes } = realModel();
  await drop(page, [{ name, bytes }]);
  await opened(page, name);
  const old = await size(page);
  await setSlider(page, "bits", 1);
  await newSize(page, old);
  await page.locator(".layers tbody tr").last().click();
  await page.getByRole("button", { name: "Lessons" }).click();
  await page.locator("dialog .lessons").waitFor();
  await page.keyboard.press("Escape");
  await download(page);
  // The download itself is a blob of the page.
  expect(requests.filter((url) => !url.startsWith("blob:"))).toEqual([]);
});

test("the page asks only its own server, also while it loads", async () => {
  visit = await pages.open();
  await rest(visit);
  const foreign = visit.requests.filter(
    (url) => !url.startsWith(pages.url) && !url.startsWith(`blob:${new URL(pages.url).origin}`),
  );
  expect(foreign).toEqual([]);
  const policy = await visit.page.locator("meta[http-equiv=Content-Security-Policy]").getAttribute("content");
  expect(policy).toContain("script-src 'self' 'wasm-unsafe-eval'");
  expect(visit.complaints).toEqual([]);
});

test.each([
  ["garbage", new TextEncoder().encode("this is no model at all")],
  ["an empty file", new Uint8Array()],
  ["half a model", matmulNet().slice(0, 3000)],
])("a broken file gives a sentence, and the model that was open stays: %s", async (_what, bytes) => {
  visit = await pages.open();
  const { page } = visit;
  await drop(page, [{ name: "broken.onnx", bytes }]);
  const banner = page.getByRole("alert").locator(".trouble");
  await banner.waitFor();
  const text = await banner.innerText();
  expect(text).toContain("This file could not be read.");
  expect(text).toContain("broken.onnx");
  expect(text).not.toMatch(/\bat .+:\d+:\d+|Error:|undefined|\[object/);
  await opened(page, "simplenet.onnx");
  const old = await size(page);
  await setSlider(page, "bits", 3);
  await newSize(page, old);
  await banner.getByRole("button", { name: "Dismiss" }).click();
  await banner.waitFor({ state: "detached" });
  expect(visit.complaints).toEqual([]);
});

test("a model without its external data asks for it, and opens with both files", async () => {
  const values = weights(64 * 32, 5);
  const bytes = model(
    graph({
      nodes: [node("MatMul", ["x", "w"], ["y"])],
      initializers: [floats("w", [64, 32], values, { storage: { file: "w.bin" } })],
      inputs: [value("x", ["n", 64])],
      outputs: [value("y", ["n", 32])],
    }),
  );
  visit = await pages.open();
  const { page } = visit;
  await drop(page, [{ name: "outside.onnx", bytes }]);
  const banner = page.getByRole("alert").locator(".trouble");
  await banner.waitFor();
  expect(await banner.innerText()).toContain("w.bin");
  expect(await banner.innerText()).toContain("drop the missing file");
  await drop(page, [{ name: "w.bin", bytes: new Uint8Array(values.buffer) }]);
  await opened(page, "outside.onnx");
  await banner.waitFor({ state: "detached" });
  await drop(page, [
    { name: "w.bin", bytes: new Uint8Array(values.buffer) },
    { name: "again.onnx", bytes },
  ]);
  await opened(page, "again.onnx");
  expect(visit.complaints).toEqual([]);
});

test("a long run can be stopped half way, and the page goes on with the last good result", async () => {
  visit = await pages.open({ hash: "#lang=en&quantize=bits:8,granularity:group" });
  const { page } = visit;
  const path = join(await mkdtemp(join(tmpdir(), "nibble-")), "large.onnx");
  await writeFile(path, matmulNet([4000, 3500, 1000])); // 17.5 million weights: a search for the best ranges takes long
  await page.locator("input[type=file]").first().setInputFiles(path);
  await opened(page, "large.onnx");
  const good = await size(page);
  await setSlider(page, "bits", 3);
  await newSize(page, good);
  const before = await size(page);
  const cancel = page.getByRole("button", { name: "Cancel" });
  // Clicked the moment it is there: a test's click would first wait for it to hold still, and the run may end meanwhile.
  await page.evaluate(() => {
    new MutationObserver((_, observer) => {
      const button = document.querySelector<HTMLButtonElement>(".working button");
      if (button) observer.disconnect();
      button?.click();
    }).observe(document.body, { subtree: true, childList: true });
    [...document.querySelectorAll("label")].find((label) => label.textContent === "MSE")!.click();
  });
  await page.getByText("Stopped. The last result stays.").waitFor();
  await cancel.waitFor({ state: "detached" });
  expect(await size(page)).toBe(before);
  expect(await page.getByRole("radio", { name: "Min–max" }).isChecked()).toBe(true);
  expect(await page.getByRole("alert").innerText()).toBe("");
  const saved = await download(page);
  expect(saved.bytes.length).toBe(before);
  await setSlider(page, "bits", 7);
  expect(await newSize(page, before)).toBe(good);
  expect(visit.complaints).toEqual([]);
  await rm(dirname(path), { recursive: true });
});

test("the whole state is in the address", async () => {
  visit = await pages.open();
  const { page } = visit;
  await page.getByRole("switch", { name: "Use this step: Prune" }).check();
  await setSlider(page, "sparsity", 0.8);
  await setSlider(page, "bits", 3);
  await page.getByRole("radio", { name: "Tensor" }).check();
  await page.getByRole("checkbox", { name: "Compress conv1.weight" }).uncheck();
  await page.getByRole("button", { name: "fc2.weight" }).click();
  await page.getByRole("button", { name: "中文" }).click();
  await page.waitForFunction(() => location.hash.includes("lang=zh") && location.hash.includes("layer=fc2"));
  const bytes = await size(page);
  const hash = new URL(page.url()).hash;
  await page.context().close();

  visit = await pages.open({ hash });
  expect(await visit.page.locator("html").getAttribute("lang")).toBe("zh");
  await visit.page.waitForFunction(
    (was) => Number(document.querySelector("[data-testid=size]")?.getAttribute("data-bytes")) === was,
    bytes,
  );
  expect(await visit.page.locator(".layer-head h2").textContent()).toBe("fc2.weight");
  expect(await visit.page.getByRole("checkbox", { name: "压缩 conv1.weight" }).isChecked()).toBe(false);
  expect(visit.complaints).toEqual([]);
});

test("link, command and recipe can be copied, and a recipe pasted", async () => {
  visit = await pages.open({ permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = visit;
  const clipboard = (): Promise<string> => page.evaluate(() => navigator.clipboard.readText());
  const copied = async (button: string, said: string): Promise<string> => {
    await page.getByRole("button", { name: button }).click();
    await page.getByText(said).waitFor();
    return clipboard();
  };
  expect(await copied("Copy link", "Link copied")).toMatch(/#lang=en&sample=simplenet&.*quantize=bits:8/);
  expect(await copied("Copy command", "Command copied")).toBe(
    "npx nibble-nn compress simplenet.onnx --bits 8 --symmetric --granularity channel --range minmax --rounding nearest -o simplenet.small.onnx",
  );
  const recipe = JSON.parse(await copied("Copy recipe", "Recipe copied"));
  expect(recipe.steps).toEqual([
    {
      kind: "quantize",
      scheme: { bits: 8, symmetric: true, granularity: "channel" },
      range: "minmax",
      rounding: "nearest",
    },
  ]);
  recipe.steps[0].scheme.bits = 2;
  const paste = (text: string): Promise<void> =>
    page.evaluate((given) => {
      const data = new DataTransfer();
      data.setData("text/plain", given);
      document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
    }, text);
  await paste(JSON.stringify(recipe));
  await page.waitForFunction(() => document.querySelector("[data-step=quantize] output")?.textContent === "2");
  recipe.steps[0].schema = {};
  await paste(JSON.stringify(recipe));
  expect(await page.getByRole("alert").locator(".trouble").innerText()).toContain("schema");
  expect(visit.complaints).toEqual([]);
});

test.each([320, 820, 1440])("nothing sticks out sideways at %i pixels", async (width) => {
  for (const hash of [
    "#lang=en&prune=pattern:2%3A4&quantize=bits:4,granularity:group,range:percentile,rounding:stochastic",
    "#lang=zh",
  ]) {
    visit = await pages.open({ viewport: { width, height: 700 }, hash });
    const [content, screen] = await visit.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    expect(content).toBeLessThanOrEqual(screen!);
    await visit.page.context().close();
  }
});

test("the main controls are reached and worked with the keyboard alone", async () => {
  visit = await pages.open();
  const { page } = visit;
  const reached = new Set<string>();
  await page.locator("body").press("Tab");
  for (let i = 0; i < 80; i++) {
    reached.add(
      await page.evaluate(() => {
        const at = document.activeElement as HTMLElement;
        return at.getAttribute("data-control") ?? at.getAttribute("aria-label") ?? at.textContent?.trim() ?? "";
      }),
    );
    await page.keyboard.press("Tab");
  }
  for (const control of [
    "bits",
    "Download",
    "Pick a file",
    "fc1.weight",
    "Compress fc1.weight",
    "Use this step: Prune",
    "Copy link",
    "Show as table",
  ]) {
    expect([...reached]).toContain(control);
  }
  await bits(page).focus();
  expect(await bits(page).getAttribute("aria-valuetext")).toBe("8 bits per weight");
  await page.keyboard.press("Home");
  await page.waitForFunction(
    () => document.querySelector("[data-control=bits]")?.getAttribute("aria-valuetext") === "1 bit per weight",
  );
  await page.locator("[data-chart=error_map] canvas").focus();
  await page.keyboard.press("ArrowRight");
  expect(await page.locator("[data-chart=error_map] [role=status]").innerText()).toContain("Row 0, Column 1");
});

test("everything that can be used has a name, every picture a text and a table", async () => {
  visit = await pages.open({
    hash: "#lang=en&prune=sparsity:0.5&quantize=bits:4,range:sigma,granularity:group,rounding:stochastic",
  });
  const { page } = visit;
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll<HTMLElement>("button, input, [role=img], [tabindex='0']")]
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
  for (const chart of ["histogram", "error_map", "channels"]) {
    const card = page.locator(`[data-chart=${chart}]`);
    expect((await card.locator("canvas").getAttribute("aria-label"))!.length).toBeGreaterThan(30);
    await card.getByRole("button", { name: "Show as table" }).click();
    expect(await card.locator("tbody tr").count()).toBeGreaterThan(5);
    await card.getByRole("button", { name: "Show as picture" }).click();
    await card.locator("canvas").waitFor();
  }
});

test("what is opened before the tabs are there stays open when they come", async () => {
  let release = () => {};
  const held = new Promise<void>((done) => (release = done));
  // The tabs are a part of the page that is loaded when the layer can be seen already.
  const prepare = async (page: Page): Promise<void> => {
    await page.route("**/assets/behaviour-*.js", async (route) => {
      await held;
      await route.continue();
    });
  };
  visit = await pages.open({ prepare });
  const { page } = visit;
  const card = page.locator("[data-chart=histogram]");
  await card.getByRole("button", { name: "Show as table" }).click();
  await card.getByRole("table").waitFor();
  expect(await page.getByRole("tab").count()).toBe(0);
  release();
  await page.getByRole("tab", { name: "Train" }).waitFor();
  expect(await card.getByRole("table").count()).toBe(1);
  expect(visit.complaints).toEqual([]);
});

/** Contrast of two colors, WCAG 2.2. */
function contrast(a: number[], b: number[]): number {
  const luminance = (color: number[]): number => {
    const [r, g, b2] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b2!;
  };
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high! + 0.05) / (low! + 0.05);
}

test.each(["light", "dark"] as const)("text and colors stand out in the %s theme", async (colorScheme) => {
  visit = await pages.open({ colorScheme });
  const read = await visit.page.evaluate(() => {
    const probe = document.body.appendChild(document.createElement("span"));
    const color = (name: string): number[] => {
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe)
        .color.match(/[\d.]+/g)!
        .slice(0, 3)
        .map(Number);
    };
    return Object.fromEntries(
      ["text", "muted", "bg", "surface", "sunken", "accent", "on-accent", "accent-soft", "before", "control"].map(
        (name) => [name, color(name)],
      ),
    );
  });
  const between = (a: string, b: string): number => contrast(read[a]!, read[b]!);
  for (const ground of ["bg", "surface", "sunken", "accent-soft"]) {
    expect(between("text", ground)).toBeGreaterThan(4.5);
    expect(between("muted", ground)).toBeGreaterThan(4.5);
  }
  expect(between("on-accent", "accent")).toBeGreaterThan(4.5);
  // Shapes need 3 to 1.
  for (const shape of ["accent", "before", "control"]) expect(between(shape, "surface")).toBeGreaterThan(3);
});

test("the theme can be picked and is kept", async () => {
  visit = await pages.open({ colorScheme: "light" });
  const { page } = visit;
  const theme = (): Promise<string | null> => page.locator("html").getAttribute("data-theme");
  expect(await theme()).toBe("light");
  await page.getByRole("button", { name: "Appearance: As the system" }).click();
  await page.getByRole("button", { name: "Appearance: Light" }).click();
  expect(await theme()).toBe("dark");
  await page.reload();
  expect(await theme()).toBe("dark");
});

test("the page's own scripts are at most 160 KB gzipped", async () => {
  visit = await pages.open();
  await visit.page.getByRole("button", { name: "Lessons" }).waitFor();
  const scripts = await visit.page.evaluate(() =>
    performance
      .getEntriesByType("resource")
      .map(({ name }) => name)
      .filter((name) => /\.js$/.test(name)),
  );
  expect(scripts.length).toBeGreaterThan(1);
  let total = 0;
  for (const url of scripts)
    total += gzipSync(await readFile(join(root, "web", "dist", url.slice(pages.url.length)))).length;
  expect(total).toBeLessThan(160_000);
});

test("the samples weigh what the page says", async () => {
  const { SAMPLES } = await import("../../web/src/samples");
  for (const { path, bytes } of SAMPLES) expect(readFileSync(join(root, "web", "public", path)).length).toBe(bytes);
});
