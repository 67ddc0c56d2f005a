// Times the coders of codec_bench.cpp from JavaScript, in Node or in a browser, one thread: levels in, bytes out, and back,
// beside the platform's CompressionStream and fflate at level 9 on the same levels as bytes. They take turns. Gives
// numbers; printing is the caller's.

/// Levels, of one byte each: 2^22, so that one encoding takes a good part of a second at most.
const kLevels = 1 << 22;
const kInputs = [
  { name: "dense int8 levels", percent: 0 },
  { name: "90 % sparse int8 levels", percent: 90 },
];
const kCoders = ["rans", "cabac", "huffman"];

const summary = (times) => {
  const sorted = [...times].sort((a, b) => a - b);
  return { best: sorted[0], median: sorted[sorted.length >> 1] };
};

/// All bytes that come out of a TransformStream when `bytes` go in.
async function through(stream, bytes) {
  const writer = stream.writable.getWriter();
  writer.write(bytes);
  writer.close();
  return new Uint8Array(await new Response(stream.readable).arrayBuffer());
}

const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/// What one input is coded with: {encode, decode, size, right}, `right` telling whether what was decoded last is what was
/// encoded.
function contestants(module, fflate, bytes) {
  const ours = kCoders.map((name, coder) => {
    let size = 0;
    return {
      name,
      encode: () => (size = module._bench_encode(coder)),
      decode: () => module._bench_decode(coder),
      size: () => size,
      right: () => module._bench_came_back() !== 0,
    };
  });
  const other = (name, encode, decode) => {
    let coded, decoded;
    return {
      name,
      encode: async () => (coded = await encode(bytes)),
      decode: async () => (decoded = await decode(coded)),
      size: () => coded.length,
      right: () => same(decoded, bytes),
    };
  };
  return [
    ...ours,
    other(
      "CompressionStream",
      (data) => through(new CompressionStream("gzip"), data),
      (data) => through(new DecompressionStream("gzip"), data),
    ),
    other(
      "fflate, level 9",
      (data) => fflate.gzipSync(data, { level: 9 }),
      (data) => fflate.gunzipSync(data),
    ),
  ];
}

const seconds = async (work) => {
  const start = performance.now();
  const pending = work();
  if (pending instanceof Promise) await pending;
  return (performance.now() - start) / 1000;
};

/// Returns [{name, levels, entropy, coders: [{name, size, encode, decode}]}]: sizes and the entropy in bytes, times as
/// {best, median} in seconds. `rounds` of each, with `say` called before each part.
export async function measure_speed(create_module, fflate, { rounds, say = () => {} }) {
  const module = await create_module();
  const results = [];
  for (const { name, percent } of kInputs) {
    say(name);
    module._bench_setup(kLevels, percent);
    const at = module._bench_bytes();
    const bytes = new Uint8Array(module.HEAP8.slice(at, at + kLevels).buffer);
    const coders = contestants(module, fflate, bytes);
    const times = coders.map(() => ({ encode: [], decode: [] }));
    for (let round = -1; round < rounds; round++) {
      for (const [i, coder] of coders.entries()) {
        const encode = await seconds(coder.encode);
        const decode = await seconds(coder.decode);
        if (round >= 0) {
          times[i].encode.push(encode);
          times[i].decode.push(decode);
        } else if (!coder.right()) {
          // The first round compiles, and shows that the work is done.
          throw new Error(`${name}: what ${coder.name} decodes is not what it encoded`);
        }
      }
    }
    results.push({
      name,
      levels: kLevels,
      entropy: module._bench_entropy(),
      coders: coders.map((coder, i) => ({
        name: coder.name,
        size: coder.size(),
        encode: summary(times[i].encode),
        decode: summary(times[i].decode),
      })),
    });
  }
  return results;
}
