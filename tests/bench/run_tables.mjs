// Tables of what run_bench.mjs measured, for a terminal. Every number stands beside its reference from the same run.

/// What the project wants, as ratios within one run. Missing one is printed and no failure.
const kProductGoals = { strict: 1.1, relaxed: 1.6, peak: 0.7 };
const kTrainingGoals = { "lenet-5": 6, "lenet-300-100": 10 };
const kRunGoal = 1.3;

const kTrained = ["strict", "relaxed", "tfjs", "tuned"];

/// Columns as wide as their widest cell: the first flush left, the others right.
export function table(title, head, rows) {
  const lines = [head, ...rows.map((row) => row.map(String))];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? "").length)));
  console.log(`\n${title}`);
  for (const line of lines) {
    const cells = line.map((text, column) => (column === 0 ? text.padEnd(widths[0]) : text.padStart(widths[column])));
    console.log(`  ${cells.join("  ")}`.trimEnd());
  }
}

/// Prints everything of one environment. Returns how many goals were missed.
export function print_run(environment, { products, trainings, inferences }) {
  let missed = 0;
  const judge = (reached, text) => {
    if (!reached) missed++;
    return `${text} ${reached ? "reached" : "MISSED"}`;
  };
  const least = (ratio, goal) => judge(ratio >= goal, `${ratio.toFixed(2)} of ${goal}`);

  if (products) {
    const rows = products.map(({ size, work, peaks, times }) => {
      const rate = ({ best, median }) => `${(work / best / 1e9).toFixed(1)} (${(work / median / 1e9).toFixed(1)})`;
      const beside = (build) => times.tfjs.best / times[build].best;
      return [
        size,
        ...["strict", "relaxed", "tfjs", "ort"].map((name) => rate(times[name])),
        `${(peaks.strict / 1e9).toFixed(1)}, ${(peaks.relaxed / 1e9).toFixed(1)}`,
        least(beside("strict"), kProductGoals.strict),
        least(beside("relaxed"), kProductGoals.relaxed),
        (times.ort.best / times.relaxed.best).toFixed(2),
        least(work / times.relaxed.best / peaks.relaxed, kProductGoals.peak),
      ];
    });
    const head = ["size", "strict", "relaxed", "tfjs", "ort", "peaks", "strict x tfjs", "relaxed x tfjs"];
    table(
      `${environment}: matrix product, GFLOP/s, best (median). Peaks: registers only, strict and relaxed.`,
      [...head, "relaxed x ort", "relaxed of its peak"],
      rows,
    );
  }

  if (trainings) {
    const rows = trainings.map(({ net, batch, times, losses }) => {
      const rate = ({ best, median }) => `${Math.round(batch / best)} (${Math.round(batch / median)})`;
      return [
        net,
        ...kTrained.map((name) => rate(times[name])),
        (times.tfjs.best / times.strict.best).toFixed(2),
        least(times.tfjs.best / times.relaxed.best, kTrainingGoals[net]),
        (times.tuned.best / times.relaxed.best).toFixed(2),
        kTrained.map((name) => losses[name].toFixed(2)).join(", "),
      ];
    });
    const ratios = ["strict x tfjs", "relaxed x tfjs", "relaxed x tuned"];
    const head = ["network", ...kTrained, ...ratios, "losses at the end"];
    table(
      `${environment}: training, images per second in batches of ${trainings[0].batch}, best (median).`,
      head,
      rows,
    );
  }

  if (inferences) {
    const ran = inferences.filter(({ refused }) => refused === undefined);
    const rows = ran.map(({ name, times, error }) => {
      const ms = ({ best, median }) => `${(best * 1000).toFixed(3)} (${(median * 1000).toFixed(3)})`;
      const ratio = times.relaxed.best / times.ort.best;
      return [
        name,
        ...["strict", "relaxed", "ort"].map((contestant) => ms(times[contestant])),
        (times.strict.best / times.ort.best).toFixed(2),
        judge(ratio <= kRunGoal, `${ratio.toFixed(2)} of ${kRunGoal}`),
        error.toExponential(0),
      ];
    });
    const head = ["model", "strict", "relaxed", "ort", "strict / ort", "relaxed / ort", "difference"];
    table(
      `${environment}: one run of a model in ms, best (median), copying in and out included. Less is better.\n` +
        `  The difference is the largest of the outputs from ort's, as a share of the largest value.`,
      head,
      rows,
    );
    for (const { name, refused } of inferences.filter((model) => model.refused !== undefined))
      console.log(`  ${name} was not measured: ${refused}`);
  }
  return missed;
}

/// Prints what compute_bench.mjs measured of one build in one environment.
export function print_compute(environment, cases) {
  const rows = cases.map(({ name, work, rate, median, per_second, of_peak, loop }) => [
    name,
    (rate / 1e9).toFixed(2),
    (work / median / 1e9).toFixed(2),
    of_peak.toFixed(2),
    per_second === undefined ? "" : Math.round(per_second),
    loop === undefined ? "" : loop.toFixed(1),
  ]);
  const head = ["case", "best", "median", "of peak", "images/s", "x plain loop"];
  table(`${environment}: billions of operations per second, beside the most that registers alone give.`, head, rows);
}

/// What the columns are and what is in the price.
export function print_legend() {
  console.log(
    [
      "",
      "One thread each. strict, relaxed: this project's two builds (load() chooses relaxed where the machine has it).",
      "tfjs: TensorFlow.js, WebAssembly with SIMD. It keeps B of a product packed between calls, and its batch lies in its",
      "memory already. A convolution's filter has no gradient there and gets one composed of transpositions and a convolution.",
      "tuned: the same with all slow gradients composed of its fast kernels, which nobody gets without writing them.",
      "ort: ONNX Runtime Web with all its optimizations; B is a constant of its product's model.",
    ].join("\n"),
  );
}
