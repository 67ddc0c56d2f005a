// Times the cases of compute_bench.cpp from JavaScript, in Node or in a browser: matrix product, convolutions and training
// steps, each beside the textbook's loop and the most that registers alone give. Gives numbers; printing is the caller's.

const kPeak = 0; // the case that uses registers only
const kLongestLoop = 3e8; // operations: a loop of seconds tells no more

const wall = () => performance.now();

/// How often `work` must run to last about `least` seconds.
function repeats_for(seconds, work, least) {
  const time = Math.max(
    1e-7,
    seconds(() => work(1)),
  );
  const repeats = Math.max(1, Math.min(100000, Math.round(least / time)));
  return time > least / 8
    ? repeats
    : Math.max(
        1,
        Math.round(
          (repeats * least) /
            Math.max(
              1e-7,
              seconds(() => work(repeats)),
            ),
        ),
      );
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/// Measures the cases of one module whose names `wanted` accepts. Other programs on the machine make a sample longer, or
/// all samples of a while; so many short ones are taken, each next to one of the register peak. The best of each counts,
/// and their ratio. `clock` gives milliseconds: on a busy machine Node's process.cpuUsage() leaves out when others ran.
/// Returns [{name, work, items, time, rate, per_second, of_peak, loop}]: seconds per call, operations per
/// second, images per second (or undefined), rate / peak, and the textbook's loop's time over ours (or undefined).
export function measure(module, { rounds = 20, least = 0.004, wanted = () => true, loops = true, clock = wall } = {}) {
  const seconds = (work) => {
    const start = clock();
    work();
    return (clock() - start) / 1000;
  };
  const results = [];
  const peak = (repeats) => module._bench_run(kPeak, 0, repeats);
  for (let warm = 0; warm < 4; warm++) peak(20);
  const peak_repeats = repeats_for(seconds, peak, least / 2);
  for (let i = 0; i < module._bench_count(); i++) {
    const name = module.UTF8ToString(module._bench_name(i));
    if (!wanted(name)) continue;
    const work = module._bench_work(i);
    const items = module._bench_items(i);
    const run = (repeats) => module._bench_run(i, 0, repeats);
    // Several calls before the first sample: engines compile a function again once it has been seen to run hot.
    for (let warm = 0; warm < 4; warm++) run(1);
    const repeats = repeats_for(seconds, run, least);
    const times = [];
    const peaks = [];
    for (let round = 0; round < rounds; round++) {
      peaks.push(seconds(() => peak(peak_repeats)) / peak_repeats);
      times.push(seconds(() => run(repeats)) / repeats);
    }
    const time = Math.min(...times);
    let loop;
    if (loops && module._bench_has_loop(i) && work <= kLongestLoop) {
      const textbook = () => module._bench_run(i, 1, 1);
      textbook();
      loop = Math.min(seconds(textbook), seconds(textbook)) / time;
    }
    results.push({
      name,
      work,
      items,
      time,
      median: median(times),
      rate: work / time,
      per_second: items > 0 ? items / time : undefined,
      of_peak: work / time / (module._bench_work(kPeak) / Math.min(...peaks)),
      loop,
    });
  }
  return results;
}

/// The same product in several programs: `others` is {name: () => void}, each one C[m, n] = A B, or {name: async () => void}.
/// Ours and theirs take turns. Returns {name: seconds}, ours as "nibble".
export async function measure_product(module, m, n, k, a, b, others, rounds = 20) {
  const [at_a, at_b, at_c] = [m * k, k * n, m * n].map((count) => module._malloc(count * 4));
  try {
    module.HEAPF32.set(a, at_a / 4);
    module.HEAPF32.set(b, at_b / 4);
    const works = { nibble: () => module._bench_matmul(m, n, k, at_a, at_b, at_c), ...others };
    const best = {};
    for (let round = -3; round < rounds; round++) {
      for (const [name, work] of Object.entries(works)) {
        const start = performance.now();
        await work();
        const time = (performance.now() - start) / 1000;
        if (round >= 0) best[name] = Math.min(best[name] ?? Infinity, time);
      }
    }
    return best;
  } finally {
    for (const at of [at_a, at_b, at_c]) module._free(at);
  }
}

/// Everything of one module: `create_module` makes it; `say` is called before.
export async function measure_all(create_module, { wanted, rounds, least, loops, clock, say = () => {} } = {}) {
  const module = await create_module();
  const relaxed = Boolean(module._bench_is_relaxed());
  say(relaxed ? "relaxed multiply-add" : "strict arithmetic");
  return { relaxed, cases: measure(module, { wanted, rounds, least, loops, clock }) };
}
