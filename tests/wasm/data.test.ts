// What users give: archives, folders, images. Bytes are made here; the real files of the data folder are read where it is.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync, gzipSync } from "node:zlib";
import { encode as encodePng } from "fast-png";
import { zipSync } from "fflate";
import { encode as encodeJpeg } from "jpeg-js";
import { afterEach, describe, expect, test, vi } from "vitest";
import { NibbleError } from "../../wasm/src/api";
import { crc32, forEngine, readUserData, unpack, userData } from "../../wasm/src/data";
import type { ImageArrays } from "../../wasm/src/data";
import { decodeInNode } from "../../wasm/src/decode-node";
import type { NamedBlob } from "../../wasm/src/wire";
import { dataFolder } from "../fixtures/data";

const file = (name: string, bytes: Uint8Array | string): NamedBlob => ({
  name,
  blob: new Blob([bytes as Uint8Array<ArrayBuffer>]),
});
const text = (value: string) => new TextEncoder().encode(value);
const contents = async ({ blob }: NamedBlob) => new Uint8Array(await blob.arrayBuffer());

async function unpacked(...files: NamedBlob[]): Promise<Record<string, string>> {
  const found = await unpack(files);
  const entries = found.map(async (each) => [each.name, await each.blob.text()] as const);
  return Object.fromEntries(await Promise.all(entries));
}

async function refusal(work: Promise<unknown>): Promise<NibbleError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(NibbleError);
  return error as NibbleError;
}

afterEach(() => vi.unstubAllGlobals());

describe("archives", () => {
  test("files that are not packed stay as they are", async () => {
    expect(await unpacked(file("a/x.npy", "one"), file("y.csv", ""))).toEqual({ "a/x.npy": "one", "y.csv": "" });
  });

  test("gzip is undone by content, and loses its ending", async () => {
    const packed = gzipSync(text("hello"));
    expect(await unpacked(file("labels.gz", packed), file("images", packed))).toEqual({
      labels: "hello",
      images: "hello",
    });
  });

  test("members of a zip keep their folders; what the system left there goes", async () => {
    const zip = zipSync({
      "d/": new Uint8Array(0),
      "d/a.csv": text("one"),
      "d/e/b.csv": [text("two"), { level: 0 }],
      "d/empty.csv": text(""),
      "__MACOSX/d/._a.csv": text("x"),
      "d/.DS_Store": text("x"),
      "d/Thumbs.db": text("x"),
      "Zoë\\c.csv": text("three"),
    });
    expect(await unpacked(file("all.zip", zip))).toEqual({
      "all.zip/d/a.csv": "one",
      "all.zip/d/e/b.csv": "two",
      "all.zip/d/empty.csv": "",
      "all.zip/Zoë/c.csv": "three",
    });
  });

  test("archives in archives are unpacked, up to three deep", async () => {
    const npz = zipSync({ "x.npy": text("x"), "y.npy": text("y") });
    const outer = zipSync({ "sub/d.npz": npz, "t10k-images.gz": gzipSync(text("idx")) });
    expect(await unpacked(file("o.zip", outer))).toEqual({
      "o.zip/sub/d.npz/x.npy": "x",
      "o.zip/sub/d.npz/y.npy": "y",
      "o.zip/t10k-images": "idx",
    });
    let nested: Uint8Array = text("deep");
    for (let i = 0; i < 5; ++i) nested = zipSync({ "z.zip": nested });
    expect((await refusal(unpack([file("z.zip", nested)]))).detail).toMatch("deep");
  });

  test("zips beyond 32 bits are read by their own fields", async () => {
    const zip = wideZip("x.csv", text("1,2\n3,4\n"));
    expect(await unpacked(file("wide.zip", zip))).toEqual({ "wide.zip/x.csv": "1,2\n3,4\n" });
  });

  test("what cannot be unpacked is refused by name", async () => {
    const zip = zipSync({ "x.csv": text("some text that is long enough to be deflated, deflated, deflated") });
    const changed = (at: number, value: number, from = zip) => {
      const copy = from.slice();
      copy[at] = value;
      return file("a.zip", copy);
    };
    const directory = indexOf(zip, [0x50, 0x4b, 1, 2]);
    const locked = changed(directory + 8, 1);
    expect(await refusal(unpack([locked]))).toMatchObject({ code: "unsupported", where: "a.zip/x.csv" });
    const lzma = changed(directory + 10, 14);
    expect(await refusal(unpack([lzma]))).toMatchObject({ code: "unsupported", where: "a.zip/x.csv" });
    const wrongSum = changed(directory + 16, zip[directory + 16]! ^ 1);
    expect((await refusal(unpack([wrongSum]))).detail).toMatch("checksum");
    expect((await refusal(unpack([file("a.gz", gzipSync(text("hello")).subarray(0, 20))]))).detail).toMatch("gzip");

    const tar = new Uint8Array(1024);
    tar.set(text("ustar"), 257);
    expect((await refusal(unpack([file("a.tgz", gzipSync(tar))]))).detail).toMatch("zip");
    const aborted = AbortSignal.abort();
    expect((await refusal(unpack([file("a.zip", zip)], { signal: aborted }))).code).toBe("cancelled");
  });

  test("a browser that cannot unpack gzip says what it lacks, and reads everything else", async () => {
    vi.stubGlobal("DecompressionStream", undefined);
    const given = file("a.gz", gzipSync(text("hello")));
    expect(await refusal(unpack([given]))).toMatchObject({
      code: "unsupported",
      where: "a.gz",
      detail: expect.stringMatching(/gzip.*DecompressionStream.*Firefox 113/),
    });
    const zip = zipSync({ "x.csv": text("deflated, deflated, deflated, deflated") });
    expect(Object.keys(await unpacked(file("a.zip", zip)))).toEqual(["a.zip/x.csv"]);
  });

  test("every beginning of a zip, and one with bytes changed, is refused or read", async () => {
    const zip = zipSync({ "a.csv": text("one one one one one one"), "b.csv": [text("two"), { level: 0 }] });
    for (let length = 4; length < zip.length; ++length) {
      expect((await refusal(unpack([file("a.zip", zip.subarray(0, length))]))).code).toBe("bad-file");
    }
    for (let at = 4; at < zip.length; ++at) {
      for (const value of [0, 1, 0x7f, 0xff]) {
        const copy = zip.slice();
        copy[at] = value;
        await unpack([file("a.zip", copy)]).catch((error: unknown) => expect(error).toBeInstanceOf(NibbleError));
      }
    }
  });

  test("bombs are refused before they fill the memory", async () => {
    const zeros = new Uint8Array(68 << 20);
    const packed = deflateRawSync(zeros);
    // What the directory says is not believed: neither a size that is too small nor one that would be right.
    const short = oneMember("zeros.npy", packed, 20);
    expect((await refusal(unpack([file("bomb.zip", short)]))).detail).toMatch("checksum");
    const honest = oneMember("zeros.npy", packed, zeros.length);
    expect((await refusal(unpack([file("bomb.zip", honest)]))).detail).toMatch("fill the memory");
    expect((await refusal(unpack([file("bomb.gz", gzipSync(zeros))]))).detail).toMatch("fill the memory");
    // A small file of zeros is no bomb.
    const small = await unpack([file("a.gz", gzipSync(zeros.subarray(0, 1 << 20)))]);
    expect(small[0]!.blob.size).toBe(1 << 20);
  });

  test("the checksum is that of zip", () => {
    expect(crc32(text("123456789"))).toBe(0xcbf43926); // the check value of CRC-32/ISO-HDLC
    expect(crc32(text("6789"), crc32(text("12345")))).toBe(0xcbf43926);
  });
});

describe("images", () => {
  const grey = (level: number, size = 2) => png(size, size, 1, () => [level]);
  const read = async (files: NamedBlob[]) => (await readUserData(files, decodeInNode)) as ImageArrays;

  test("folders are classes, in the order of their names", async () => {
    const data = await read([
      file("set/dog/1.png", grey(10)),
      file("set/cat/b.png", grey(20)),
      file("set/dog/deeper/2.PNG", grey(30)),
      file("set/README.md", "hello"),
      file("set/LICENSE", "hello"),
    ]);
    expect(data).toMatchObject({ kind: "arrays", shape: [2, 2], layout: "hw", test_from: 3 });
    expect(data.class_names).toEqual(["cat", "dog"]);
    expect([...data.labels!]).toEqual([1, 0, 1]);
    expect([...data.samples]).toEqual([10, 10, 10, 10, 20, 20, 20, 20, 30, 30, 30, 30]);
    expect(data.name).toBe("1.png and 4 more");
  });

  test("folders that are numbers are those classes", async () => {
    const data = await read([file("d/7/a.png", grey(1)), file("d/10/b.png", grey(2)), file("d/3/c.png", grey(3))]);
    expect([...data.labels!]).toEqual([7, 10, 3]);
    expect(data.class_names).toHaveLength(11);
    const padded = await read([file("07/a.png", grey(1)), file("10/b.png", grey(2))]);
    expect(padded.class_names).toEqual(["07", "10"]);
  });

  test("train and test folders are the parts, wherever they are", async () => {
    const zip = zipSync({
      "mnist/test/0/a.png": grey(1),
      "mnist/train/1/b.png": grey(2),
      "mnist/train/0/c.png": grey(3),
      "mnist/val/1/d.png": grey(4),
    });
    const data = await read([file("images.zip", zip)]);
    expect(data.test_from).toBe(3);
    expect([...data.labels!]).toEqual([1, 0, 1, 0]);
    expect([...data.samples].filter((_, index) => index % 4 === 0)).toEqual([2, 3, 4, 1]);
    expect(data.name).toBe("images.zip");

    const apart = await read([
      file("test.zip", zipSync({ "0/a.png": grey(1), "1/b.png": grey(1) })),
      file("train.zip", zipSync({ "0/a.png": grey(2), "1/b.png": grey(2) })),
    ]);
    expect(apart.test_from).toBe(2);
    expect([...apart.labels!]).toEqual([0, 1, 0, 1]);
    const alone = await read([file("test/cat/a.png", grey(1)), file("test/dog/b.png", grey(2))]);
    expect(alone.test_from).toBe(2);
    expect(alone.class_names).toEqual(["cat", "dog"]);
    // The last folder that names a part decides.
    const twice = await read([file("test/train/cat/a.png", grey(1)), file("train/test/dog/b.png", grey(2))]);
    expect([twice.test_from, twice.class_names]).toEqual([1, ["cat", "dog"]]);
    const stray = [file("train/cat/a.png", grey(1)), file("other/dog/b.png", grey(2))];
    expect(await refusal(read(stray))).toMatchObject({ code: "bad-data", where: "other/dog/b.png" });
  });

  test("images in one folder have no labels", async () => {
    const data = await read([file("cats/1.png", grey(1)), file("cats/2.png", grey(2))]);
    expect(data.labels).toBeNull();
    expect((await read([file("1.png", grey(9))])).samples).toHaveLength(4);
    const mixed = [file("d/cat/1.png", grey(1)), file("d/2.png", grey(2))];
    expect(await refusal(read(mixed))).toMatchObject({ code: "bad-data", where: "d/2.png" });
  });

  test("one image with colours makes all of them colour images", async () => {
    const coloured = png(2, 2, 3, (x, y) => [200, 100 + x, 50 + y]);
    const data = await read([file("a/1.png", grey(7)), file("b/2.png", coloured), file("a/3.png", grey(9))]);
    expect(data).toMatchObject({ shape: [2, 2, 3], layout: "hwc" });
    expect([...data.samples]).toEqual([
      ...Array<number>(12).fill(7),
      ...[200, 100, 50, 200, 101, 50, 200, 100, 51, 200, 101, 51],
      ...Array<number>(12).fill(9),
    ]);
    const equal = await read([
      file(
        "a/1.png",
        png(2, 2, 3, () => [5, 5, 5]),
      ),
    ]);
    expect(equal.layout).toBe("hw");
  });

  test("PNG of every kind and JPEG are decoded", async () => {
    const pixels = async (bytes: Uint8Array) => [...(await decodeInNode(new Blob([bytes as BlobPart]), "x")).data];
    const deep = encodePng({ width: 2, height: 1, data: Uint16Array.of(0, 65535), depth: 16, channels: 1 });
    expect(await pixels(deep)).toEqual([0, 0, 0, 255, 255, 255, 255, 255]);
    const alpha = png(1, 1, 4, () => [1, 2, 3, 4]);
    expect(await pixels(alpha)).toEqual([1, 2, 3, 4]);
    const greyAlpha = png(1, 1, 2, () => [9, 8]);
    expect(await pixels(greyAlpha)).toEqual([9, 9, 9, 8]);
    // Written by hand: three pixels a line, of 1 bit, of 2 bits, and of 4 bits in a palette with one clear entry.
    const black = [0, 0, 0, 255];
    const white = [255, 255, 255, 255];
    expect(await pixels(rawPng(3, 2, 1, 0, [0, 0b10100000, 0, 0b01000000]))).toEqual(
      [white, black, white, black, white, black].flat(),
    );
    expect(await pixels(rawPng(3, 1, 2, 0, [0, 0b01101100]))).toEqual(
      [85, 170, 255].flatMap((level) => [level, level, level, 255]),
    );
    const palette = [chunk("PLTE", [1, 2, 3, 4, 5, 6, 7, 8, 9]), chunk("tRNS", [255, 0])];
    expect(await pixels(rawPng(3, 1, 4, 3, [0, 0x21, 0x00], palette))).toEqual([
      ...[7, 8, 9, 255],
      ...[4, 5, 6, 0],
      ...[1, 2, 3, 255],
    ]);
    expect(await pixels(rawPng(2, 1, 8, 0, [0, 5, 6], [chunk("tRNS", [0, 6])]))).toEqual([5, 5, 5, 255, 6, 6, 6, 0]);

    const flat = { width: 8, height: 8, data: new Uint8Array(256).map((_, i) => (i % 4 === 3 ? 255 : 120)) };
    const jpeg = await pixels(new Uint8Array(encodeJpeg(flat, 95).data));
    for (const [index, value] of jpeg.entries()) expect(Math.abs(value - flat.data[index]!)).toBeLessThanOrEqual(2);
  });

  test("images that do not fit together are refused by name", async () => {
    const other = await refusal(read([file("a/1.png", grey(1)), file("a/2.png", grey(1, 3))]));
    expect(other).toMatchObject({ code: "bad-data", where: "a/2.png" });
    expect(other.detail).toMatch("3 x 3 pixels, a/1.png is 2 x 2");
    expect(other.detail).toMatch("resize");
    const good = grey(1, 20);
    const broken = await refusal(read([file("a/1.png", good), file("b/2.png", good.subarray(0, good.length - 20))]));
    expect(broken).toMatchObject({ code: "bad-file", where: "b/2.png" });
    const damaged = good.slice();
    damaged[50]! ^= 1;
    expect(await refusal(read([file("b/3.png", damaged)]))).toMatchObject({ code: "bad-file", where: "b/3.png" });
    expect(await refusal(read([file("b/4.jpg", text("not an image"))]))).toMatchObject({ where: "b/4.jpg" });
    const clear = await refusal(
      read([
        file(
          "b/5.png",
          png(1, 1, 4, () => [1, 2, 3, 4]),
        ),
      ]),
    );
    expect(clear.detail).toMatch("transparent");
    const table = await refusal(read([file("a/1.png", grey(1)), file("labels.csv", "1,2")]));
    expect(table).toMatchObject({ code: "bad-data", where: "labels.csv" });
    const huge = await refusal(read([file("a/1.png", rawPng(60000, 60000, 8, 0, []))]));
    expect(huge).toMatchObject({ code: "unsupported", where: "a/1.png" });
    const bomb = rawPng(1, 1, 8, 0, Array<number>(0), [chunk("IDAT", [...Buffer.alloc(10000)])]);
    expect((await refusal(read([file("a/1.png", bomb)]))).detail).toMatch("larger than the image");
  });
});

describe("what the engine is handed", () => {
  test("files stay files", async () => {
    const data = await readUserData([file("a.gz", gzipSync(text("1,2\n")))], decodeInNode);
    expect(data).toMatchObject({ kind: "files", name: "a.gz" });
    const { files, spec, held } = forEngine(data, 1000);
    expect(held).toBe(1000);
    expect(files.map(({ name }) => name)).toEqual(["a"]);
    expect(JSON.parse(spec)).toEqual({ kind: "files", name: "a.gz" });
    expect((await refusal(readUserData([file("a.zip", zipSync({}))], decodeInNode))).detail).toMatch("no file");
  });

  test("images are samples, labels and words about them", async () => {
    const level = png(2, 1, 1, (x) => [x]);
    const data = await readUserData([file("cat/1.png", level), file("dog/2.png", level)], decodeInNode);
    const { files, spec, held } = forEngine(data, 1000);
    expect(held).toBe(Infinity); // pixels are no file with a header, whatever they begin with
    const blobs = files.map(({ name, file }) => ({ name, blob: file as Blob }));
    expect(await contents(blobs[0]!)).toEqual(Uint8Array.of(0, 1, 0, 1));
    expect(new Int32Array((await contents(blobs[1]!)).buffer)).toEqual(Int32Array.of(0, 1));
    expect(JSON.parse(spec)).toEqual({
      kind: "arrays",
      name: "1.png and 1 more",
      layout: "hw",
      shape: [1, 2],
      class_names: ["cat", "dog"],
      test_from: 2,
    });
    const unlabelled = await readUserData([file("1.png", level)], decodeInNode);
    expect(forEngine(unlabelled, 1000).files).toHaveLength(1);
  });
});

test("arrays that stay on disk go with other files, and not with images", async () => {
  const disk = { name: "x.npy", file: { path: "/x.npy", size: 5000, modified: 1 } };
  const labels = { name: "y.npy.gz", file: new Blob([gzipSync(text("labels")) as Uint8Array<ArrayBuffer>]) };
  for (const given of [
    [disk, labels],
    [labels, disk],
  ]) {
    const { files, spec, held } = await userData(given, decodeInNode, 1000, {});
    // Their order may be what says which are the samples.
    expect(files.map(({ name }) => name)).toEqual(given.map(({ name }) => name.replace(".gz", "")));
    expect(files[given.indexOf(disk)]!.file).toEqual(disk.file);
    expect([JSON.parse(spec), held]).toEqual([{ kind: "files", name: `${given[0]!.name} and 1 more` }, 1000]);
  }
  const picture = { name: "a/1.png", file: new Blob([png(1, 1, 1, () => [0]) as Uint8Array<ArrayBuffer>]) };
  const error = await refusal(userData([disk, picture], decodeInNode, 1000, {}));
  expect(error).toMatchObject({ code: "bad-data", where: "a/1.png" });
});

const mnist = dataFolder && join(dataFolder, "mnist");
test.skipIf(!mnist || !existsSync(mnist))("MNIST's own files are unpacked to what they were", async () => {
  const names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"];
  const found = await unpack(
    names.map((name) => file(`${name}-ubyte.gz`, readFileSync(join(mnist!, `${name}-ubyte.gz`)))),
  );
  expect(found.map(({ name }) => name)).toEqual(names.map((name) => `${name}-ubyte`));
  const [images, labels] = await Promise.all(found.map(contents));
  // The sum of the file as LeCun published it.
  expect(createHash("md5").update(images!).digest("hex")).toBe("6bbc9ace898e44ae57da46a324031adb");
  expect([...labels!.subarray(0, 8)]).toEqual([0, 0, 8, 1, 0, 0, 0xea, 0x60]);
  expect([...labels!.subarray(8, 18)]).toEqual([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
});

const npz = dataFolder && join(dataFolder, "npz");
test.skipIf(!npz || !existsSync(npz))("npz files from elsewhere are unpacked to NumPy files", async () => {
  const members = async (name: string) => {
    const found = await unpack([file(name, readFileSync(join(npz!, name)))]);
    for (const each of found) expect([...(await contents(each)).subarray(0, 6)]).toEqual([0x93, ...text("NUMPY")]);
    return found.map((each) => [each.name, each.blob.size]);
  };
  expect(await members("candle-test.npz")).toEqual([
    ["candle-test.npz/x.npy", 208],
    ["candle-test.npz/x_plus_one.npy", 208],
  ]);
  expect(await members("mnist-cnn-iips.npz")).toEqual([
    ["mnist-cnn-iips.npz/conv_kernels.npy", 2528],
    ["mnist-cnn-iips.npz/conv_biases.npy", 224],
    ["mnist-cnn-iips.npz/dense_weights.npy", 138368],
    ["mnist-cnn-iips.npz/dense_biases.npy", 208],
  ]);
});

// ---- files made here ----

function png(width: number, height: number, channels: number, pixel: (x: number, y: number) => number[]): Uint8Array {
  const data = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; ++i) data.set(pixel(i % width, Math.floor(i / width)), i * channels);
  return encodePng({ width, height, data, channels, depth: 8 });
}

const uint32 = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];

/** A chunk of a PNG. */
function chunk(type: string, data: number[]): number[] {
  const body = [...text(type), ...data];
  return [...uint32(data.length), ...body, ...uint32(crc32(Uint8Array.from(body)))];
}

/** A PNG of lines that are given as they are: filter byte and packed pixels. */
function rawPng(width: number, height: number, depth: number, type: number, lines: number[], more: number[][] = []) {
  const deflated = [...deflateZlib(Uint8Array.from(lines))];
  return Uint8Array.from([
    ...[0x89, ...text("PNG\r\n\x1a\n")],
    ...chunk("IHDR", [...uint32(width), ...uint32(height), depth, type, 0, 0, 0]),
    ...more.flat(),
    ...chunk("IDAT", deflated),
    ...chunk("IEND", []),
  ]);
}

/** RFC 1950 around RFC 1951: header, stream, Adler-32. */
function deflateZlib(bytes: Uint8Array): Uint8Array {
  let [a, b] = [1, 0];
  for (const byte of bytes) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  return Uint8Array.from([0x78, 0x9c, ...deflateRawSync(bytes), ...uint32(((b << 16) | a) >>> 0)]);
}

function indexOf(bytes: Uint8Array, wanted: number[]): number {
  return bytes.findIndex((_, at) => wanted.every((value, offset) => bytes[at + offset] === value));
}

/** Little-endian numbers, each given with its width in bytes. */
function numbers(...fields: [value: number, width: number][]): number[] {
  return fields.flatMap(([value, width]) =>
    Array.from({ length: width }, (_, i) => Math.floor(value / 256 ** i) % 256),
  );
}

/** A zip with one deflated member whose directory says `size`. */
function oneMember(name: string, packed: Uint8Array, size: number): Uint8Array {
  const path = text(name);
  const common = numbers(
    [20, 2],
    [0, 2],
    [8, 2],
    [0, 4],
    [0, 4],
    [packed.length, 4],
    [size, 4],
    [path.length, 2],
    [0, 2],
  );
  const local = [...numbers([0x04034b50, 4]), ...common, ...path];
  const directory = [...numbers([0x02014b50, 4], [20, 2]), ...common, ...numbers([0, 6], [0, 4], [0, 4]), ...path];
  const at = local.length + packed.length;
  const end = numbers([0x06054b50, 4], [0, 4], [1, 2], [1, 2], [directory.length, 4], [at, 4], [0, 2]);
  const zip = new Uint8Array(at + directory.length + end.length);
  zip.set(local);
  zip.set(packed, local.length);
  zip.set([...directory, ...end], at);
  return zip;
}

/** A zip with one stored member, all of whose sizes and places stand in the fields of 64 bits. */
function wideZip(name: string, bytes: Uint8Array): Uint8Array {
  const path = text(name);
  const sum = crc32(bytes);
  const none = 0xffffffff;
  const common = [
    [45, 2],
    [0, 2],
    [0, 2],
    [0, 4],
    [sum, 4],
    [none, 4],
    [none, 4],
    [path.length, 2],
  ] as [number, number][];
  const localExtra = numbers([1, 2], [16, 2], [bytes.length, 8], [bytes.length, 8]);
  const local = [...numbers([0x04034b50, 4], ...common, [localExtra.length, 2]), ...path, ...localExtra, ...bytes];
  const extra = numbers([0x9999, 2], [2, 2], [0, 2], [1, 2], [24, 2], [bytes.length, 8], [bytes.length, 8], [0, 8]);
  const directory = [
    ...numbers([0x02014b50, 4], [45, 2], ...common, [extra.length, 2], [0, 6], [0, 4], [none, 4]),
    ...path,
    ...extra,
  ];
  const at = local.length;
  const large = numbers(
    [0x06064b50, 4],
    [44, 8],
    [45, 2],
    [45, 2],
    [0, 8],
    [1, 8],
    [1, 8],
    [directory.length, 8],
    [at, 8],
  );
  const locator = numbers([0x07064b50, 4], [0, 4], [at + directory.length, 8], [1, 4]);
  const end = numbers([0x06054b50, 4], [0, 4], [0xffff, 2], [0xffff, 2], [none, 4], [none, 4], [0, 2]);
  return Uint8Array.from([...local, ...directory, ...large, ...locator, ...end]);
}
