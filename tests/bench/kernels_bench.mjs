// Times the cases of kernels_bench.cpp from JavaScript, in Node or in a browser: each kernel beside its plain twin, memcpy
// and a plain JavaScript loop, which take turns. Gives numbers; printing is the caller's.
import { plain_loops } from "./plain_loops.mjs";

const kKernel = 0;
const kTwin = 1;
const kCopy = 2;

const summary = (times) => {
  const sorted = [...times].sort((a, b) => a - b);
  return { best: sorted[0], median: sorted[sorted.length >> 1] };
};

const seconds = (work) => {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
};

/// How often `work` must run to last about `least` seconds.
function repeats_for(work, least) {
  for (let repeats = 1; ; repeats *= 4) {
    const time = seconds(() => work(repeats));
    if (time < least / 4 && repeats < 4096) continue;
    return Math.max(1, Math.min(4096, Math.round((repeats * least) / time)));
  }
}

/// Measures all cases at one size. Other programs on the machine only ever make a sample longer, so many short ones are
/// taken, and the best counts; the slower twins and plain loops, whose ratios need less precision, are taken every fourth
/// round. `only`, where given, is a list of names. Times are seconds per call.
/// Returns [{name, bytes, kernel, twin, copy, plain}], each measure as {best, median}, `plain` undefined where there is none.
export function measure(module, elements, { rounds, least, only }) {
  module._bench_setup(elements);
  const at = module._bench_input() / 4;
  const plain_data = plain_loops.prepare(module.HEAPF32.slice(at, at + elements));
  const results = [];
  for (let i = 0; module._bench_name(i) !== 0; i++) {
    const name = module.UTF8ToString(module._bench_name(i));
    if (only && !only.includes(name)) continue;
    const works = [kKernel, kTwin, kCopy].map((which) => (repeats) => module._bench_run(i, which, repeats));
    const plain = plain_loops.loops[name];
    if (plain) {
      works.push((repeats) => {
        for (let r = 0; r < repeats; r++) plain(plain_data);
      });
    }
    // Several calls before the first sample: engines compile a function again once it has been seen to run hot.
    for (const work of works) for (let warm = 0; warm < 4; warm++) work(1);
    const repeats = works.map((work) => repeats_for(work, least));
    const times = works.map(() => []);
    for (let round = 0; round < rounds; round++) {
      works.forEach((work, w) => {
        if (w !== kKernel && w !== kCopy && round % 4 !== 0) return;
        times[w].push(seconds(() => work(repeats[w])) / repeats[w]);
      });
    }
    const [kernel, twin, copy, loop] = times.map(summary);
    results.push({ name, bytes: elements * 4, kernel, twin, copy, plain: loop });
  }
  return results;
}

/// Pruning ten million weights to 80 %, in seconds: {kth, nth_element, kth_and_mask, apply}, each {best, median}.
export function measure_pruning(module, rounds) {
  module._bench_setup(10000384);
  const times = { kth: [], nth_element: [], kth_and_mask: [], apply: [] };
  for (let round = -1; round < rounds; round++) {
    module._bench_nth_element_setup();
    const now = {
      kth: seconds(() => module._bench_kth()),
      nth_element: seconds(() => module._bench_nth_element()),
      kth_and_mask: seconds(() => module._bench_kth_and_mask()),
      apply: seconds(() => module._bench_apply()),
    };
    if (round < 0) continue; // the first compiles and touches memory
    for (const key of Object.keys(times)) times[key].push(now[key]);
  }
  return Object.fromEntries(Object.entries(times).map(([key, list]) => [key, summary(list)]));
}

/// Everything, with `say` called before each part. `large` is the large size in bytes of floats.
export async function measure_all(create_module, { large, only, say = () => {} }) {
  const module = await create_module();
  say("pruning ten million weights");
  const pruning = measure_pruning(module, 5);
  say("within the second-level cache");
  const cached = measure(module, 65536, { rounds: 24, least: 0.002, only });
  say("beyond the caches");
  const streamed = measure(module, large / 4, { rounds: 8, least: 0.01, only });
  return { pruning, cached, streamed };
}
