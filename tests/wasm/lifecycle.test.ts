// The client alone, over a host made of a few lines: what happens when the engine's thread dies, and in which order.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expose } from "comlink";
import { afterEach, expect, test } from "vitest";
import { createLoad } from "../../wasm/src/client";
import type { Platform, ThreadEvents } from "../../wasm/src/platform";
import type { Host, NamedBlob, Reply } from "../../wasm/src/wire";
import type { Engine, Recipe } from "nibble-nn";

/** The eight bytes that every WebAssembly module starts with, which make an empty one. */
const kEmptyModule = Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);

/** A host whose models are strings: the file's text, then one "+recipe" per compression. */
class FakeHost implements Host {
  models = new Map<number, string>();
  log: string[] = [];
  #next = 1;
  /** Calls of compress with the recipe "slow" wait for this. */
  gate = new Promise<void>(() => {});

  constructor(readonly events: ThreadEvents) {}

  start = async (): Promise<Reply<null>> => ({ value: null });
  open = async (files: NamedBlob[]) => this.#add(await files[0]!.blob.text(), "open");
  check = async (recipe: string): Promise<Reply<string>> => ({ value: recipe });
  compress = async (model: number, recipe: string) => {
    const name = (JSON.parse(recipe) as { name: string }).name;
    this.events.onProgress({ phase: "quantize", item: name, fraction: 0.5 });
    if (name === "slow") await this.gate;
    if (name === "lost") this.events.onLost("out of memory");
    if (name === "lost") await this.gate;
    if (name === "trap") return fail("internal", "unreachable", true);
    if (name === "bad") return fail("bad-recipe", "expected 1 to 8, got 9", false);
    return this.#add(`${this.models.get(model)}+${name}`, `compress ${name}`);
  };
  values = async (): Promise<Reply<Float32Array>> => ({ value: new Float32Array(1) });
  picture = async (): Promise<Reply<never>> => fail("internal", "no pictures here", false);
  write = async (model: number): Promise<Reply<Uint8Array>> => ({
    value: new TextEncoder().encode(this.models.get(model) ?? "no such model"),
  });
  close = async (model: number): Promise<Reply<null>> => {
    this.log.push(`close ${this.models.get(model)}`);
    this.models.delete(model);
    return { value: null };
  };

  #add(text: string, what: string) {
    this.log.push(what);
    const model = this.#next++;
    this.models.set(model, text);
    return { value: { model, info: JSON.stringify({ name: text }), report: JSON.stringify({ text }) } };
  }
}

const fail = (code: "internal" | "bad-recipe", detail: string, fatal: boolean) => ({
  failure: { code, where: "", detail, fatal },
});

let engine: Engine | undefined;
afterEach(() => {
  engine?.close();
  for (const port of ports.splice(0)) port.close();
});

const ports: MessagePort[] = [];

/** An engine over fake hosts; `hosts` gets one for every thread that is started. */
async function fake(worker = true): Promise<{ engine: Engine; hosts: FakeHost[] }> {
  const hosts: FakeHost[] = [];
  const platform: Platform = {
    wasm: async () => ({ bytes: kEmptyModule, source: "test" }),
    thread: async (events) => {
      const host = new FakeHost(events);
      hosts.push(host);
      const { port1, port2 } = new MessageChannel();
      ports.push(port1, port2);
      expose({ ...host }, port1 as never);
      port2.start();
      return { endpoint: port2 as never, end: () => port1.close(), hold: () => {} };
    },
    local: async (events) => {
      const host = new FakeHost({ ...events, onLost: () => {} });
      hosts.push(host);
      return host;
    },
  };
  engine = await createLoad(platform)({ worker });
  return { engine, hosts };
}

const recipe = (name: string) => ({ name }) as unknown as Recipe;
const open = (from: Engine, text = "file") => from.open(new TextEncoder().encode(text));
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

test("a cancelled call ends the thread, and models are made again in the next one", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const first = await model.compress(recipe("a"));
  const second = await first.model.compress(recipe("b"));
  const stop = new AbortController();
  const slow = second.model.compress(recipe("slow"), { signal: stop.signal, onProgress: () => stop.abort() });
  await expect(slow).rejects.toMatchObject({ name: "NibbleError", code: "cancelled" });
  expect(hosts).toHaveLength(1);

  expect(text(await second.model.export())).toBe("file+a+b");
  expect(hosts).toHaveLength(2);
  expect(hosts[1]!.log).toEqual(["open", "compress a", "compress b"]);
  // Each of them is there again and not made twice.
  expect(text(await first.model.export())).toBe("file+a");
  expect(hosts[1]!.log).toHaveLength(3);
});

test("cancelling one call leaves those that wait behind it", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  const stop = new AbortController();
  const slow = model.compress(recipe("slow"), { signal: stop.signal });
  const waiting = model.compress(recipe("a"));
  const withdrawn = new AbortController();
  const never = model.export(undefined, { signal: withdrawn.signal });
  withdrawn.abort();
  await expect(never).rejects.toMatchObject({ code: "cancelled" });
  stop.abort();
  await expect(slow).rejects.toMatchObject({ code: "cancelled" });
  expect((await waiting).model.info.name).toBe("file+a");
});

test("a signal that is aborted already stops the call before it begins", async () => {
  const { engine, hosts } = await fake();
  const signal = AbortSignal.abort();
  await expect(engine.open(new Uint8Array(1), { signal })).rejects.toMatchObject({ code: "cancelled" });
  expect(hosts[0]!.log).toEqual([]);
});

for (const name of ["trap", "lost"]) {
  test(`after "${name}" the thread is replaced and the models live on`, async () => {
    const { engine, hosts } = await fake();
    const model = await open(engine);
    await expect(model.compress(recipe(name))).rejects.toMatchObject({ code: "internal" });
    expect(text(await model.export())).toBe("file");
    expect(hosts).toHaveLength(2);
  });
}

test("a trap in the caller's own thread replaces the module", async () => {
  const { engine, hosts } = await fake(false);
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal", detail: "unreachable" });
  expect(text(await model.export())).toBe("file");
  expect(hosts).toHaveLength(2);
});

test("an ordinary error keeps the thread", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("bad"))).rejects.toMatchObject({ code: "bad-recipe" });
  await model.export();
  expect(hosts).toHaveLength(1);
});

test("a disposed ancestor is made again only for as long as it is needed", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const result = await model.compress(recipe("a"));
  model.dispose();
  await expect(model.export()).rejects.toMatchObject({ code: "bad-data", detail: expect.stringContaining("disposed") });
  await expect(result.model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(hosts[0]!.log).toContain("close file");

  expect(text(await result.model.export())).toBe("file+a");
  expect(hosts[1]!.log).toEqual(["open", "compress a", "close file"]);
  expect([...hosts[1]!.models.values()]).toEqual(["file+a"]);
});

test("disposing twice and disposing what a dead thread held do no harm", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  model.dispose();
  model.dispose();
  await engine.check("{}");
  expect(hosts[1]!.log).toEqual([]);
});

test("a model disposed of while it is made again is freed after that", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  const last = model.export();
  model.dispose();
  expect(text(await last)).toBe("file");
  await engine.check("{}");
  expect(hosts[1]!.log).toEqual(["open", "close file"]);
});

test("disposing of what a dead thread held starts no new thread", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  model.dispose();
  await new Promise((later) => setTimeout(later, 10));
  expect(hosts).toHaveLength(1);
});

test("using frees a model at the end of its block", async () => {
  const { engine, hosts } = await fake();
  {
    using model = await open(engine);
    expect(model.info.name).toBe("file");
  }
  await engine.check("{}");
  expect(hosts[0]!.log).toEqual(["open", "close file"]);
});

test("a model that nobody holds any more is freed with its garbage", async () => {
  const { engine, hosts } = await fake();
  const forget = async () => void (await open(engine, "forgotten"));
  await forget();
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await expect
    .poll(() => {
      collect();
      return hosts[0]!.log;
    })
    .toContain("close forgotten");
});

test("a result keeps what it was made from, held or not", async () => {
  const { engine, hosts } = await fake();
  const compressed = async () => (await (await open(engine)).compress(recipe("a"))).model;
  const result = await compressed();
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  await expect.poll(() => (collect(), hosts[0]!.log)).toContain("close file");
  await expect(result.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(text(await result.export())).toBe("file+a");
});

test("close rejects what runs and what waits, and everything after", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  const running = model.compress(recipe("slow"));
  const waiting = model.export();
  engine.close();
  await expect(running).rejects.toMatchObject({ code: "cancelled" });
  await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
  await expect(engine.check("{}")).rejects.toMatchObject({ code: "cancelled" });
  model.dispose();
});

test("progress of making models again and of the call itself is one run from 0 to 1", async () => {
  const { engine } = await fake();
  const model = await open(engine);
  const first = await model.compress(recipe("a"));
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  const seen: number[] = [];
  await first.model.compress(recipe("b"), { onProgress: ({ fraction }) => seen.push(fraction) });
  // Three parts (open, compress a, compress b), the last two of which report their middle.
  expect(seen).toEqual([1 / 3 + 1 / 6, 2 / 3 + 1 / 6]);
});

test("an error thrown by a progress listener reaches the caller and harms nothing else", async () => {
  const { engine, hosts } = await fake();
  const model = await open(engine);
  const onProgress = () => {
    throw new RangeError("from the listener");
  };
  await expect(model.compress(recipe("a"), { onProgress })).rejects.toThrow("from the listener");
  expect(text(await model.export())).toBe("file");
  expect(hosts).toHaveLength(1);
});

test("loading can be stopped", async () => {
  const platform = (stop: AbortController): Platform => ({
    wasm: async () => {
      stop.abort();
      return { bytes: kEmptyModule, source: "test" };
    },
    thread: () => Promise.reject(new Error("not reached")),
    local: () => Promise.reject(new Error("not reached")),
  });
  const stop = new AbortController();
  await expect(createLoad(platform(stop))({ signal: stop.signal })).rejects.toMatchObject({ code: "cancelled" });
});

test("a thread that cannot be started is an error of its own, and is tried again", async () => {
  let tries = 0;
  const platform: Platform = {
    wasm: async () => ({ bytes: kEmptyModule, source: "test" }),
    thread: () => Promise.reject(new Error(`no threads today (${++tries})`)),
    local: () => Promise.reject(new Error("not reached")),
  };
  for (const message of ["no threads today (1)", "no threads today (2)"]) {
    await expect(createLoad(platform)()).rejects.toMatchObject({ name: "NibbleError", code: "internal", message });
  }
});

test("what is not a file, a recipe or a model is refused with a sentence", async () => {
  const { engine } = await fake();
  await expect(engine.open("path.onnx" as never)).rejects.toMatchObject({
    code: "bad-file",
    detail: expect.stringContaining("string"),
  });
  const model = await open(engine);
  const circle: Record<string, unknown> = {};
  circle.self = circle;
  await expect(model.compress(circle as never)).rejects.toMatchObject({ code: "bad-recipe" });
  await expect(model.picture("w", {} as never)).rejects.toMatchObject({ code: "bad-data", where: "result" });
});

test("the caller may change its bytes after open", async () => {
  const { engine } = await fake();
  const bytes = new TextEncoder().encode("file");
  const opening = engine.open(bytes);
  bytes.fill(0);
  const model = await opening;
  await expect(model.compress(recipe("trap"))).rejects.toMatchObject({ code: "internal" });
  expect(text(await model.export())).toBe("file");
});

test("a page in the place of the module is named as such", async () => {
  const platform = (bytes: Uint8Array): Platform => ({
    wasm: async () => ({ bytes, source: "https://example.org/engine.wasm" }),
    thread: () => Promise.reject(new Error("not reached")),
    local: () => Promise.reject(new Error("not reached")),
  });
  const page = new TextEncoder().encode("<!doctype html><title>Home</title>");
  await expect(createLoad(platform(page))()).rejects.toMatchObject({
    name: "NibbleError",
    where: "https://example.org/engine.wasm",
    detail: expect.stringMatching(/HTML page.*wasmUrl.*nibble-nn\/inline/),
  });
  await expect(createLoad(platform(new Uint8Array()))()).rejects.toMatchObject({
    detail: expect.stringContaining("an empty file"),
  });
});
