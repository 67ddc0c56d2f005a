// Images in Node, which decodes none itself. Imported when there are images, so that nothing else pays for it.
import { decode as decodePng } from "fast-png";
import { decode as decodeJpeg } from "jpeg-js";
import { NibbleError } from "./api";
import type { DecodedImage } from "./data";

/** Far more than a network for which this is made looks at. */
const kMostPixels = 2 ** 24;

/** Gives the pixels of a PNG or JPEG. */
export async function decodeInNode(image: Blob, name: string): Promise<DecodedImage> {
  const bytes = new Uint8Array(await image.arrayBuffer());
  if (bytes[0] === 0x89 && bytes[1] === 0x50) return png(bytes, name);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const limits = { maxResolutionInMP: kMostPixels / 1e6, maxMemoryUsageInMB: 512 };
    return decodeJpeg(bytes, { useTArray: true, formatAsRGBA: true, tolerantDecoding: false, ...limits });
  }
  throw new NibbleError("unsupported", name, "here PNG and JPEG images are decoded; convert it to PNG");
}

function png(bytes: Uint8Array, name: string): DecodedImage {
  checkSize(bytes, name);
  const { width, height, depth, channels, data, palette, transparency } = decodePng(bytes, { checkCrc: true });
  const out = new Uint8ClampedArray(width * height * 4);
  const perLine = depth < 8 ? Math.ceil((width * depth * channels) / 8) : width * channels;
  const most = 2 ** depth - 1;
  /** Sample `index` of a line, as the file has it. Depths below 8 have one channel and several pixels in a byte. */
  const at = (line: number, index: number): number => {
    if (depth >= 8) return data[line * perLine + index]!;
    const bit = index * depth;
    return (data[line * perLine + (bit >> 3)]! >> (8 - depth - (bit & 7))) & most;
  };
  const colours = channels > 2 ? 3 : 1;
  for (let y = 0, to = 0; y < height; ++y) {
    for (let x = 0; x < width; ++x, to += 4) {
      if (palette) {
        const entry = palette[at(y, x)] as number[] | undefined;
        if (!entry) throw new Error("a pixel's colour is not in the palette");
        out.set([entry[0]!, entry[1]!, entry[2]!, entry[3] ?? 255], to);
        continue;
      }
      // One grey or colour may stand for "transparent".
      let isClear = transparency !== undefined && transparency.length >= colours;
      for (let c = 0; c < 3; ++c) {
        const value = at(y, x * channels + (colours === 3 ? c : 0));
        if (c < colours && value !== transparency?.[c]) isClear = false;
        out[to + c] = Math.round((value * 255) / most);
      }
      const alpha = channels % 2 === 0 ? at(y, x * channels + channels - 1) : most;
      out[to + 3] = isClear ? 0 : Math.round((alpha * 255) / most);
    }
  }
  return { width, height, data: out };
}

/** The header's size is taken seriously before anything is unpacked: pixels beyond a limit, and packed data that are
 *  larger than the pixels themselves, are refused. */
function checkSize(bytes: Uint8Array, name: string): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 33) throw new Error("the file is incomplete");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  if (width * height > kMostPixels) {
    throw new NibbleError("unsupported", name, `${width} x ${height} pixels are more than 16 million; resize it first`);
  }
  let packed = 0;
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49444154) packed += view.getUint32(at); // IDAT
  }
  const raw = height * (width * 8 + 16); // four channels of 16 bits, and what each line adds, interlaced or not
  if (packed > raw * 1.01 + 4096) throw new Error("its packed pixels are larger than the image");
}
