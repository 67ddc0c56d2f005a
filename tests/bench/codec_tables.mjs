// Tables of what codec_bench.mjs, codec_sizes.mjs and trellis.mjs measured, for a terminal.
import { table } from "./run_tables.mjs";

/// What the project wants.
const kSparseGoal = 0.88; // of zstd's bytes, where 80 % are zeros or more
const kEntropyGoal = (entropy) => 1.01 * entropy + 16; // bytes
const kPaperGoal = 0.05; // how far from the paper's sizes
/// Millions of levels per second.
const kSpeedGoals = {
  "dense int8 levels": { rans: { encode: 100, decode: 300 }, cabac: { encode: 10, decode: 10 } },
  "90 % sparse int8 levels": { cabac: { encode: 50, decode: 50 } },
};

const kOthers = ["entropy", "zstd", "xz", "brotli", "gzip", "huffman", "rans"];
const kCoders = kOthers.slice(1);
const kSmall = 10000;

const total = (list, key) => list.reduce((sum, entry) => sum + entry[key], 0);
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const verdict = (reached) => (reached ? "reached" : "MISSED");

/// One row for each recipe: what the arithmetic coder takes in all, and as a share of what each other takes. With `detail`
/// one table of all tensors for each recipe too.
export function print_sizes({ weights, available, recipes }, detail) {
  const missing = kCoders.filter((coder) => recipes[0].tensors.some((tensor) => tensor[coder] === null));
  const there = kOthers.filter((other) => !missing.includes(other));
  const rivals = kCoders.filter((coder) => !missing.includes(coder));
  const rows = recipes.map(({ name, tensors }) => {
    const cabac = total(tensors, "cabac");
    const ratios = kOthers.map((other) =>
      there.includes(other) ? (cabac / total(tensors, other)).toFixed(3) : "missing",
    );
    return [name, Math.round(cabac), (cabac / total(tensors, "packed")).toFixed(3), ...ratios];
  });
  table(
    `Levels of ${weights} of ${available} weights with 1000 elements and more: bytes of the arithmetic coder, and its share of\n` +
      "the packed levels and of what each other makes of them (below 1: smaller). The entropy is of order 0, without tables.",
    ["recipe", "cabac", "/ packed", ...kOthers.map((other) => `/ ${other}`)],
    rows,
  );

  const judged = recipes.map(({ name, zeros, tensors }) => {
    const least = (tensor) => Math.min(...rivals.map((rival) => tensor[rival]));
    const beaten = tensors.filter((tensor) => least(tensor) < tensor.cabac);
    const over = tensors.filter((tensor) => tensor.cabac > kEntropyGoal(tensor.entropy));
    const worst = tensors.toSorted((a, b) => b.cabac / least(b) - a.cabac / least(a))[0];
    const farthest = tensors.toSorted(
      (a, b) => b.cabac - kEntropyGoal(b.entropy) - (a.cabac - kEntropyGoal(a.entropy)),
    )[0];
    const beyond = farthest.cabac - kEntropyGoal(farthest.entropy);
    const beside = total(tensors, "cabac") / total(tensors, "zstd");
    return [
      name,
      `${beaten.length} ${verdict(beaten.length === 0)}`,
      (worst.cabac / least(worst)).toFixed(3),
      `${over.length} (${over.filter(({ elements }) => elements >= kSmall).length}) ${verdict(over.length === 0)}`,
      `${beyond < 0 ? "" : "+"}${beyond.toFixed(1)} (${farthest.elements} elements, entropy ${farthest.entropy.toFixed(0)})`,
      zeros < 0.8 || missing.includes("zstd") ? "" : `${percent(1 - beside)} ${verdict(beside <= kSparseGoal)}`,
    ];
  });
  table(
    "Tensors on which another is smaller, the worst of cabac / the smallest other; tensors over entropy * 1.01 + 16 bytes (of\n" +
      `them with ${kSmall} elements and more), the farthest beyond that in bytes; how far cabac is below zstd in all.`,
    ["recipe", "not smallest", "worst", "over the entropy", "farthest", "below zstd"],
    judged,
  );
  if (!detail) return;
  for (const { name, tensors } of recipes) {
    table(
      `${name}: bytes`,
      ["tensor", "elements", "zeros", "packed", "cabac", ...kOthers],
      tensors.map((tensor) => [
        `${tensor.model}: ${tensor.weight}`,
        tensor.elements,
        percent(tensor.zeros),
        tensor.packed,
        tensor.cabac.toFixed(0),
        ...kOthers.map((other) => (tensor[other] === null ? "missing" : tensor[other].toFixed(0))),
      ]),
    );
  }
}

/// Speeds of one environment. Returns how many goals were missed.
export function print_speed(environment, inputs) {
  let missed = 0;
  for (const { name, levels, entropy, coders } of inputs) {
    const rate = (seconds) => levels / seconds / 1e6;
    const rows = coders.map(({ name: coder, size, encode, decode }) => {
      const goals = Object.entries(kSpeedGoals[name][coder] ?? {}).map(([direction, least]) => {
        const reached = rate({ encode, decode }[direction].best) >= least;
        if (!reached) missed++;
        return `${direction} ${least}: ${verdict(reached)}`;
      });
      const speeds = [encode, decode].map(
        ({ best, median }) => `${rate(best).toFixed(1)} (${rate(median).toFixed(1)})`,
      );
      return [coder, ...speeds, size, (size / entropy).toFixed(4), goals.join(", ")];
    });
    table(
      `${environment}, one thread, ${levels} ${name}: MB/s of one byte a level, best (median)`,
      ["coder", "encode", "decode", "bytes", "/ entropy", "goal"],
      rows,
    );
  }
  return missed;
}

/// Deep Compression's recipe beside its paper.
export function print_paper(models) {
  for (const { name, parameters, paper, ours, file, cabac_file, weights } of models) {
    const row = (what, size, beside, cabac) => [
      what,
      Math.round(beside),
      size,
      (size / beside).toFixed(3),
      Math.round(cabac),
    ];
    const rows = weights.map((weight) =>
      row(weight.name, weight.huffman + weight.codebook, weight.paper, weight.cabac + weight.codebook),
    );
    rows.push(row("these and codebooks", ours, paper, total(weights, "cabac") + total(weights, "codebook")));
    rows.push(row("the whole .nib file", file, paper, cabac_file));
    const near = Math.abs(file / paper - 1) <= kPaperGoal;
    table(
      `${name}, ${parameters} parameters, with Deep Compression's sparsities and bits, without training: bytes. The file within\n` +
        `${percent(kPaperGoal, 0)} of the paper's: ${verdict(near)}`,
      ["", "paper", "huffman", "/ paper", "cabac instead"],
      rows,
    );
  }
}

/// Ratios at little loss of accuracy, by tool.
export function print_accuracy(models) {
  for (const { name, before, accuracy, samples, rows } of models) {
    const ratio = (bytes) => (bytes ? (before / bytes).toFixed(2) : "");
    table(
      `${name}, ${before} bytes, ${percent(accuracy, 2)} of ${samples} digits: the smallest file with less than 0.3 points lost. The\n` +
        "last two: were the same levels coded to their order-0 entropy, or with rANS, instead of with contexts.",
      ["", "setting", "bytes", "ratio", "accuracy", "entropy", "rans"],
      rows.map((row) => [
        row.tool,
        row.setting,
        row.bytes ?? "",
        ratio(row.bytes),
        row.bytes ? percent(row.accuracy, 2) : "",
        ratio(row.entropy_bytes),
        ratio(row.rans_bytes),
      ]),
    );
  }
}

/// What a trellis saves at equal error.
export function print_trellis(sources) {
  for (const { name, rows } of sources) {
    const names = Object.keys(rows[0].others);
    table(
      `${name}: bits per weight at equal squared error, and what that is of the file`,
      ["scalar", "SNR in dB", ...names.flatMap((key) => [key, "saved"])],
      rows.map(({ bits, snr, others }) => [
        bits.toFixed(2),
        snr.toFixed(2),
        ...names.flatMap((key) =>
          others[key] ? [others[key].bits.toFixed(3), percent(others[key].of_file)] : ["", ""],
        ),
      ]),
    );
  }
}
