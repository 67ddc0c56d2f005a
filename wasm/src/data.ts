// What users give, made into what the engine reads: archives are unpacked, images decoded, folders read as labels.
import { Inflate, inflateSync } from "fflate";
import { NibbleError } from "./api";
import { gunzipped } from "./gzip";
import type { DataFile, NamedBlob } from "./wire";

/** Everything unpacked together, in bytes: what a tab can hold beside the engine's own memory. */
const kMostUnpacked = 2 ** 31;
/** Deflate packs at most some thousand to one. Real data never come near that, but small files of zeros do. */
const kMostRatio = 250;
const kRatioMatters = 64 * 2 ** 20;
/** A zip in a zip in a zip; an npz is a zip. */
const kMostDepth = 3;
const kMostMembers = 1_000_000;
/** Archives up to this are read at once, larger ones member by member. */
const kReadWhole = 256 * 2 ** 20;
/** Members of archives up to this are not worth a stream. */
const kSmall = 2 ** 20;
/** Images that are decoded at the same time. */
const kAtOnce = 16;

/** Pixels as red, green, blue and alpha bytes. */
export interface DecodedImage {
  width: number;
  height: number;
  data: Uint8ClampedArray | Uint8Array;
}

/** Gives the pixels of an encoded image or throws; `name` is for messages. */
export type DecodeImage = (image: Blob, name: string) => Promise<DecodedImage>;

export interface UnpackOptions {
  signal?: AbortSignal | undefined;
}

/** Images of one size. */
export interface ImageArrays {
  kind: "arrays";
  name: string;
  /** Image after image, those for testing last. */
  samples: Uint8Array;
  /** Of one image: [height, width], or [height, width, 3] where one of them has a colour. */
  shape: number[];
  layout: "hw" | "hwc";
  /** One for each image; none where the folders do not say. */
  labels: Int32Array | null;
  class_names: string[];
  /** Images from this one on are for testing; their number where none is. */
  test_from: number;
}

export type UserData = { kind: "files"; name: string; files: NamedBlob[] } | ImageArrays;

/** Files as the user gave them, made into files that the engine's core reads or into decoded images. */
export async function readUserData(
  given: NamedBlob[],
  decode: DecodeImage,
  options: UnpackOptions = {},
): Promise<UserData> {
  const name = nameOf(given);
  const files = await unpack(given, options);
  if (files.length === 0) throw new NibbleError("bad-file", name, "there is no file in it");
  if (!files.some((file) => isImage(file.name))) return { kind: "files", name, files };
  return decodeImages(files, name, decode, options);
}

/** What the engine is handed: the files, and what they are as JSON. */
export interface ForEngine {
  files: DataFile[];
  spec: string;
  /** Arrays of more bytes stay in their file. */
  held: number;
}

export function forEngine(data: UserData, held: number): ForEngine {
  if (data.kind === "files") {
    return { files: data.files.map(fileOf), spec: JSON.stringify({ kind: "files", name: data.name }), held };
  }
  const { kind, name, samples, shape, layout, labels, class_names, test_from } = data;
  const files: DataFile[] = [{ name: "samples", file: new Blob([samples as Uint8Array<ArrayBuffer>]) }];
  if (labels) files.push({ name: "labels", file: new Blob([labels as Int32Array<ArrayBuffer>]) });
  // Pixels have no header, and some would look like one.
  return { files, spec: JSON.stringify({ kind, name, layout, shape, class_names, test_from }), held: Infinity };
}

/** Files of which some are arrays that stay on disk; the others are unpacked and decoded. */
export async function userData(
  given: DataFile[],
  decode: DecodeImage,
  held: number,
  options: UnpackOptions,
): Promise<ForEngine> {
  const blobs = given.flatMap(({ name, file }) => (file instanceof Blob ? [{ name, blob: file }] : []));
  if (blobs.length === given.length) return forEngine(await readUserData(blobs, decode, options), held);
  // In the order in which they were given: it says which are the samples where names do not.
  const budget = new Budget();
  const files: DataFile[] = [];
  for (const { name, file } of given) {
    const unpacked = file instanceof Blob ? await unpack([{ name, blob: file }], options, budget) : [];
    const picture = unpacked.find((inner) => isImage(inner.name));
    if (picture) throw new NibbleError("bad-data", picture.name, kMixed);
    files.push(...(file instanceof Blob ? unpacked.map(fileOf) : [{ name, file }]));
  }
  return { files, spec: JSON.stringify({ kind: "files", name: nameOf(given) }), held };
}

const fileOf = ({ name, blob }: NamedBlob): DataFile => ({ name, file: blob });

function nameOf(given: { name: string }[]): string {
  const first = (given[0]?.name ?? "data").split("/").at(-1) || "data";
  return given.length > 1 ? `${first} and ${given.length - 1} more` : first;
}

function checkSignal(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new NibbleError("cancelled", "", "stopped");
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

// --- Archives --------------------------------------------------------------------------------------------------------

/** How much has been unpacked. Counts what comes out, not what an archive says about itself. */
class Budget {
  #spent = 0;

  /** `out` bytes of `name` are there so far, made of `packed`; `more` of them are new. */
  spend(name: string, more: number, out: number, packed: number): void {
    this.#spent += more;
    if (this.#spent > kMostUnpacked) {
      throw new NibbleError("bad-file", name, "unpacked this is more than 2 GB; give less of it at a time");
    }
    if (out > kRatioMatters && out > packed * kMostRatio) {
      throw new NibbleError(
        "bad-file",
        name,
        `${packed} bytes unpack to more than ${out}: this is not data but made to fill the memory`,
      );
    }
  }
}

/** Files without their packing: .gz by content, the members of zip and npz as "archive.zip/folder/member". Files that
 *  operating systems leave in archives are dropped. */
export async function unpack(
  files: NamedBlob[],
  { signal }: UnpackOptions = {},
  budget = new Budget(),
): Promise<NamedBlob[]> {
  const open = async (file: NamedBlob, depth: number): Promise<NamedBlob[]> => {
    checkSignal(signal);
    const magic = await bytesOf(file.blob.slice(0, 4), file.name);
    const isGzip = magic[0] === 0x1f && magic[1] === 0x8b;
    const isZip = magic[0] === 0x50 && magic[1] === 0x4b && (magic[2] === 3 || magic[2] === 5) && magic.length === 4;
    if (!isGzip && !isZip) return [file];
    if (depth === kMostDepth) {
      throw new NibbleError("bad-file", file.name, `archives in archives, more than ${kMostDepth} deep; unpack some`);
    }
    if (isGzip) return open(await gunzip(file, budget), depth + 1);
    const found: NamedBlob[] = [];
    for await (const member of unzip(file, budget)) {
      for (const inner of await open(member, depth + 1)) found.push(inner);
    }
    return found;
  };
  const all: NamedBlob[] = [];
  for (const file of files) {
    if (isLeftBehind(file.name)) continue;
    for (const inner of await open(file, 0)) all.push(inner);
  }
  return all;
}

/** What Finder and Explorer put beside the files, and what is hidden. */
function isLeftBehind(path: string): boolean {
  const parts = path.split("/");
  const last = parts.at(-1)!;
  return parts.includes("__MACOSX") || last.startsWith(".") || /^(thumbs\.db|desktop\.ini)$/i.test(last);
}

async function bytesOf(blob: Blob, name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    const why = `the file can no longer be read (moved, changed or removed?): ${reasonOf(error)}`;
    throw new NibbleError("bad-file", name, why);
  }
}

async function gunzip({ name, blob }: NamedBlob, budget: Budget): Promise<NamedBlob> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  const reader = gunzipped(blob, name, "gzip files").getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      budget.spend(name, value.length, size, blob.size);
      chunks.push(value);
    }
  } catch (error) {
    await reader.cancel().catch(() => undefined);
    if (error instanceof NibbleError) throw error;
    throw new NibbleError("bad-file", name, `the gzip file is damaged or incomplete (${reasonOf(error)})`);
  }
  const unpacked = new Blob(chunks);
  const mark = await bytesOf(unpacked.slice(257, 262), name);
  if (new TextDecoder().decode(mark) === "ustar") {
    throw new NibbleError("unsupported", name, "tar archives are not read; pack the files as zip");
  }
  return { name: name.replace(/\.gz$/i, ""), blob: unpacked };
}

interface Member {
  name: string;
  method: number;
  encrypted: boolean;
  crc: number;
  packed: number;
  size: number;
  offset: number;
}

/** The members of a zip in the order of its directory (PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.4). */
async function* unzip({ name, blob }: NamedBlob, budget: Budget): AsyncGenerator<NamedBlob> {
  const whole = blob.size <= kReadWhole ? await bytesOf(blob, name) : undefined;
  const bad = (detail: string) => new NibbleError("bad-file", name, detail);
  const read = async (at: number, size: number): Promise<DataView<ArrayBuffer>> => {
    if (!(at >= 0 && size >= 0 && at + size <= blob.size)) throw bad("the zip file is damaged or incomplete");
    const bytes = whole ? whole.subarray(at, at + size) : await bytesOf(blob.slice(at, at + size), name);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };

  for (const member of await membersOf(blob.size, read, bad)) {
    const path = `${name}/${member.name}`;
    if (member.name.endsWith("/") || isLeftBehind(member.name)) continue;
    if (member.encrypted)
      throw new NibbleError("unsupported", path, "it is encrypted; pack the files without password");
    if (member.method !== 0 && member.method !== 8) {
      const how = `method ${member.method}; pack the files as plain zip (method "deflate")`;
      throw new NibbleError("unsupported", path, `it is packed with a ${how}`);
    }
    const head = await read(member.offset, 30);
    if (head.getUint32(0, true) !== 0x04034b50) throw bad(`${member.name} is not where the directory says`);
    const start = member.offset + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    const packed = await read(start, member.packed);
    const bytes = new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength);
    const chunks = member.method === 0 ? [bytes] : inflate(bytes, member.size, path, budget);
    if (member.method === 0) budget.spend(path, bytes.length, bytes.length, bytes.length);
    let crc = 0;
    let size = 0;
    for (const chunk of chunks) {
      crc = crc32(chunk, crc);
      size += chunk.length;
    }
    if (size !== member.size || crc !== member.crc) {
      throw new NibbleError("bad-file", path, "damaged: its contents are not what the zip's checksum says");
    }
    yield { name: path, blob: new Blob(chunks) };
  }
}

async function membersOf(
  total: number,
  read: (at: number, size: number) => Promise<DataView<ArrayBuffer>>,
  bad: (detail: string) => NibbleError,
): Promise<Member[]> {
  // The end record is 22 bytes and a comment of at most 65535.
  const tail = Math.min(total, 22 + 65535);
  const end = await read(total - tail, tail);
  let at = tail - 22;
  while (at >= 0 && end.getUint32(at, true) !== 0x06054b50) --at;
  if (at < 0) throw bad("the zip file has no directory: it is damaged or incomplete");
  let count = end.getUint16(at + 10, true);
  let size = end.getUint32(at + 12, true);
  let start = end.getUint32(at + 16, true);
  if (end.getUint16(at + 4, true) !== end.getUint16(at + 6, true)) throw bad("zips of several parts are not read");
  if ((count === 0xffff || size === 0xffffffff || start === 0xffffffff) && at >= 20) {
    if (end.getUint32(at - 20, true) === 0x07064b50) {
      const large = await read(Number(end.getBigUint64(at - 20 + 8, true)), 56);
      if (large.getUint32(0, true) !== 0x06064b50) throw bad("the zip file's directory is damaged");
      count = Number(large.getBigUint64(32, true));
      size = Number(large.getBigUint64(40, true));
      start = Number(large.getBigUint64(48, true));
    }
  }
  if (count > kMostMembers) throw bad(`more than ${kMostMembers} files in one archive`);
  const directory = await read(start, size);
  const members: Member[] = [];
  for (let place = 0, i = 0; i < count; ++i) {
    if (place + 46 > size || directory.getUint32(place, true) !== 0x02014b50)
      throw bad("the zip's directory is damaged");
    const lengths = [28, 30, 32].map((field) => directory.getUint16(place + field, true)) as [number, number, number];
    const next = place + 46 + lengths[0] + lengths[1] + lengths[2];
    if (next > size) throw bad("the zip's directory is damaged");
    const text = new Uint8Array(directory.buffer, directory.byteOffset + place + 46, lengths[0]);
    const flags = directory.getUint16(place + 8, true);
    const member: Member = {
      name: nameFrom(text, (flags & 0x800) !== 0),
      method: directory.getUint16(place + 10, true),
      encrypted: (flags & 1) !== 0,
      crc: directory.getUint32(place + 16, true),
      packed: directory.getUint32(place + 20, true),
      size: directory.getUint32(place + 24, true),
      offset: directory.getUint32(place + 42, true),
    };
    widen(member, directory, place + 46 + lengths[0], lengths[1]);
    members.push(member);
    place = next;
  }
  return members;
}

/** Numbers that need more than 32 bits stand in an extra field, in this order and only those (section 4.5.3). */
function widen(member: Member, directory: DataView, at: number, length: number): void {
  const end = at + length;
  for (let next; at + 4 <= end; at = next) {
    next = at + 4 + directory.getUint16(at + 2, true);
    if (directory.getUint16(at, true) !== 1 || next > end) continue;
    let field = at + 4;
    for (const key of ["size", "packed", "offset"] as const) {
      if (member[key] !== 0xffffffff || field + 8 > next) continue;
      member[key] = Number(directory.getBigUint64(field, true));
      field += 8;
    }
  }
}

function nameFrom(bytes: Uint8Array, isUtf8: boolean): string {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    text = new TextDecoder(isUtf8 ? "utf-8" : "latin1").decode(bytes);
  }
  return text.replaceAll("\\", "/").replace(/^\/+/, "");
}

const damaged = (name: string, error: unknown) =>
  new NibbleError("bad-file", name, `damaged: it cannot be unpacked (${reasonOf(error)})`);

/** `expected` is what the directory says: small members are unpacked at once into as much room and no more. */
function inflate(packed: Uint8Array, expected: number, name: string, budget: Budget): Uint8Array<ArrayBuffer>[] {
  if (expected <= kSmall) {
    budget.spend(name, expected, expected, packed.length);
    try {
      return [inflateSync(packed, { out: new Uint8Array(expected) }) as Uint8Array<ArrayBuffer>];
    } catch (error) {
      throw damaged(name, error);
    }
  }
  const kPiece = 1 << 16; // of which at most 64 MB come out before the budget is asked
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  const inflater = new Inflate((chunk) => {
    size += chunk.length;
    budget.spend(name, chunk.length, size, packed.length);
    chunks.push(chunk as Uint8Array<ArrayBuffer>);
  });
  try {
    for (let at = 0; at === 0 || at < packed.length; at += kPiece) {
      inflater.push(packed.subarray(at, at + kPiece), at + kPiece >= packed.length);
    }
  } catch (error) {
    throw error instanceof NibbleError ? error : damaged(name, error);
  }
  return chunks;
}

const kCrcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** The checksum of zip; `crc` is that of what came before. */
export function crc32(bytes: Uint8Array, crc = 0): number {
  crc = ~crc;
  for (let i = 0; i < bytes.length; ++i) crc = kCrcTable[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

// --- Images ----------------------------------------------------------------------------------------------------------

const kMixed = "images and other data do not go together; give one or the other";

const isImage = (name: string) => /\.(png|jpe?g|webp|bmp|gif)$/i.test(name);
/** Files that may lie beside images without being missed. */
const isRemark = (name: string) => /\.(md|txt|rst|html?|pdf|json|ya?ml|xml|py|ipynb)$|(^|\/)[^./]+$/i.test(name);

type Part = "training" | "test";

interface Picture {
  file: NamedBlob;
  part: Part | undefined;
  folders: string[];
}

/** What a folder's name says about its images; those for validation are split by whoever trains. */
function partOf(folder: string): Part | undefined {
  if (/^(train|training|val|valid|validation)(\.zip)?$/i.test(folder)) return "training";
  return /^(test|testing)(\.zip)?$/i.test(folder) ? "test" : undefined;
}

/** Decodes images of one size into one array. The class is the first folder below the part ("train", "test") or else
 *  below what all have in common; classes are in the order of their names, or numbers where all of them are. */
async function decodeImages(
  files: NamedBlob[],
  name: string,
  decode: DecodeImage,
  { signal }: UnpackOptions,
): Promise<ImageArrays> {
  const pictures: Picture[] = [];
  for (const file of files) {
    if (!isImage(file.name)) {
      if (isRemark(file.name)) continue;
      throw new NibbleError("bad-data", file.name, kMixed);
    }
    const folders = file.name.split("/").slice(0, -1);
    // The last folder that names a part.
    const named = folders.map(partOf);
    let place = named.length - 1;
    while (place >= 0 && !named[place]) --place;
    pictures.push({ file, part: named[place], folders: folders.slice(place + 1) });
  }
  const parts = new Set(pictures.map(({ part }) => part));
  const outside = pictures.find(({ part }) => part === undefined);
  if (outside && parts.has("training")) {
    throw new NibbleError("bad-data", outside.file.name, 'it lies neither in "train" nor in "test" as others do');
  }
  // A part that is alone says nothing.
  const isTest = ({ part }: Picture) => part === "test" && parts.size > 1;
  const ordered = [...pictures.filter((picture) => !isTest(picture)), ...pictures.filter(isTest)];
  const test_from = ordered.filter((picture) => !isTest(picture)).length;

  const { labels, class_names } = labelsOf(ordered);
  const pixels = await pixelsOf(ordered, decode, signal);
  return { kind: "arrays", name, ...pixels, labels, class_names, test_from };
}

function labelsOf(pictures: Picture[]): { labels: Int32Array | null; class_names: string[] } {
  const first = pictures[0]!.folders;
  let common = 0;
  while (common < first.length && pictures.every(({ folders }) => folders[common] === first[common])) ++common;
  const classes = pictures.map(({ folders }) => folders[common]);
  const without = classes.findIndex((folder) => folder === undefined);
  if (without >= 0) {
    const within = classes.findIndex((folder) => folder !== undefined);
    if (within < 0) return { labels: null, class_names: [] };
    throw new NibbleError(
      "bad-data",
      pictures[without]!.file.name,
      `it lies in no class's folder, unlike ${pictures[within]!.file.name}; put each image into a folder of its class`,
    );
  }
  const named = [...new Set(classes as string[])].sort((a, b) => (a < b ? -1 : 1));
  const areNumbers = named.every((folder) => /^(0|[1-9]\d{0,2})$/.test(folder));
  const most = areNumbers ? Math.max(...named.map(Number)) : 0;
  const class_names = areNumbers ? Array.from({ length: most + 1 }, (_, number) => String(number)) : named;
  const places = new Map(class_names.map((folder, index) => [folder, index]));
  return { labels: Int32Array.from(classes as string[], (folder) => places.get(folder)!), class_names };
}

/** Grey as long as no image has a colour. */
async function pixelsOf(
  pictures: Picture[],
  decode: DecodeImage,
  signal: AbortSignal | undefined,
): Promise<Pick<ImageArrays, "samples" | "shape" | "layout">> {
  let width = 0;
  let height = 0;
  let channels = 1;
  let samples = new Uint8Array(0);
  const room = (each: number): Uint8Array<ArrayBuffer> => {
    const size = pictures.length * width * height * each;
    const detail = `${pictures.length} images of ${width} x ${height} are ${size} bytes; give fewer or smaller ones`;
    if (size > kMostUnpacked) throw new NibbleError("out-of-memory", "images", detail);
    try {
      return new Uint8Array(size);
    } catch {
      throw new NibbleError("out-of-memory", "images", detail);
    }
  };
  for (let start = 0; start < pictures.length; start += kAtOnce) {
    checkSignal(signal);
    const images = await Promise.all(pictures.slice(start, start + kAtOnce).map(({ file }) => decoded(file, decode)));
    for (const [offset, image] of images.entries()) {
      const { name } = pictures[start + offset]!.file;
      if (start + offset === 0) {
        ({ width, height } = image);
        samples = room(1);
      }
      if (image.width !== width || image.height !== height) {
        throw new NibbleError(
          "bad-data",
          name,
          `it is ${image.width} x ${image.height} pixels, ${pictures[0]!.file.name} is ${width} x ${height}: ` +
            "images need one size; resize them first",
        );
      }
      if (channels === 1 && hasColour(image)) {
        const coloured = room(3);
        const seen = (start + offset) * width * height;
        for (let i = 0; i < seen; ++i) coloured.fill(samples[i]!, 3 * i, 3 * i + 3);
        samples = coloured;
        channels = 3;
      }
      put(image, channels, samples.subarray((start + offset) * width * height * channels), name);
    }
  }
  if (channels === 1) return { samples, shape: [height, width], layout: "hw" };
  return { samples, shape: [height, width, 3], layout: "hwc" };
}

async function decoded({ name, blob }: NamedBlob, decode: DecodeImage): Promise<DecodedImage> {
  let image: DecodedImage;
  try {
    image = await decode(blob, name);
  } catch (error) {
    if (error instanceof NibbleError) throw error;
    throw new NibbleError("bad-file", name, `the image cannot be decoded (${reasonOf(error)})`);
  }
  if (image.width < 1 || image.height < 1 || image.data.length !== image.width * image.height * 4) {
    throw new NibbleError("bad-file", name, "the image cannot be decoded (its pixels do not fill it)");
  }
  return image;
}

function hasColour({ data }: DecodedImage): boolean {
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return true;
  }
  return false;
}

/** A model sees no transparency, and what would be behind it is anybody's guess. */
function put({ data }: DecodedImage, channels: number, out: Uint8Array, name: string): void {
  for (let from = 0, to = 0; from < data.length; from += 4) {
    if (data[from + 3] !== 255) {
      throw new NibbleError("unsupported", name, "it has transparent pixels; put it on a background first");
    }
    for (let channel = 0; channel < channels; ++channel) out[to++] = data[from + channel]!;
  }
}

/** Decodes in a browser's page or worker. Colours stay as the file has them. */
export async function decodeInBrowser(image: Blob, name: string): Promise<DecodedImage> {
  if (typeof createImageBitmap !== "function" || typeof OffscreenCanvas !== "function") {
    throw new NibbleError(
      "unsupported",
      name,
      "images are decoded by newer browsers (Firefox 105, Safari 16.4) or in Node",
    );
  }
  const bitmap = await createImageBitmap(image, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  try {
    const { width, height } = bitmap;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    if (!context) throw new NibbleError("unsupported", name, "this browser gives no canvas to decode images with");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height);
  } finally {
    bitmap.close();
  }
}
