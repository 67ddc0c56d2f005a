// How fast the kernels are: each beside its plain twin and beside memcpy of the same bytes, the three taking turns
// within one run. As a program it measures and prints; as a WebAssembly module without main() it only offers the same
// cases to kernels_bench.mjs, which adds plain JavaScript and runs in Node and in a browser. Usage: bench_kernels
// [megabytes of the large size]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/base/context.hpp"
#include "core/kernels/kernels.hpp"
#include "core/kernels/reference.hpp"

namespace {

using namespace nibble;
using namespace nibble::kernels;

constexpr size_t kColumns = 1024;  // of the matrix that rows and transpose work on
const Grid kGrid{0.03f, 1 / 0.03f, 0, -127, 127};

/// Inputs and outputs of all cases. Sizes are multiples of kColumns.
struct Data {
  std::vector<float> x, y, out, scales;
  std::vector<int8_t> codes;
  std::vector<uint8_t> packed, bytes;
  std::vector<uint16_t> halves;
  std::vector<int16_t> words;
  std::vector<uint64_t> mask;
  std::vector<uint32_t> bins;

  explicit Data(size_t n)
      : x(n),
        y(n),
        out(n),
        scales(n / 32),
        codes(n),
        packed(n),
        bytes(n),
        halves(n),
        words(n),
        mask((n + 63) / 64),
        bins(256) {
    for (size_t i = 0; i < n; ++i) {
      float sum = -2;
      for (uint64_t j = 0; j < 4; ++j) sum += uniform24(j, i);  // a bell like that of weights
      x[i] = sum;
      y[i] = sum + 0.01f * uniform24(4, i);
    }
    quantize(x, kGrid, std::span<int8_t>(codes));
    for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(codes[i] & 15);
    pack_bits(bytes, 4, std::span(packed).first(n / 2));
    float_to_half(x, halves);
    threshold_mask(x, 0.7f, 0, mask);
  }
  size_t rows() const { return x.size() / kColumns; }
  std::span<const float> in() const { return x; }
};

volatile double sink;  // keeps results alive

/// One kernel and its twin, called on the same data.
struct Case {
  const char* name;
  void (*kernel)(Data&);
  void (*twin)(Data&);
};

template <class Code>
std::span<Code> whole(std::vector<Code>& v) {
  return v;
}
template <class Code>
std::span<const Code> view(const std::vector<Code>& v) {
  return v;
}

#define NIBBLE_CASE(name, call)                     \
  {                                                 \
    name,                                           \
        [](Data& d) {                               \
          namespace k = nibble::kernels;            \
          call;                                     \
        },                                          \
        [](Data& d) {                               \
          namespace k = nibble::kernels::reference; \
          call;                                     \
        },                                          \
  }

Kth kth_of(Kth (*select)(std::span<const std::span<const float>>, size_t), Data& d) {
  const std::span<const float> part(d.x);
  return select({&part, 1}, d.x.size() * 4 / 5);
}

const Case kCases[] = {
    NIBBLE_CASE("abs_max", sink = k::abs_max(d.x)),
    NIBBLE_CASE("min_max", sink = k::min_max(d.x).max),
    NIBBLE_CASE("moments", sink = k::moments(d.x, 0.1).sum_squares),
    NIBBLE_CASE("histogram, 256 bins", k::histogram(d.x, -2, 2, d.bins)),
    NIBBLE_CASE("difference", sink = k::difference(d.x, d.y).sum_product),
    NIBBLE_CASE("kth_magnitude at 80 %", sink = kth_of(k::kth_magnitude, d).magnitude),
    NIBBLE_CASE("count_magnitudes", sink = static_cast<double>(k::count_magnitudes(d.x, 0.5f).below)),
    NIBBLE_CASE("threshold_mask", sink = static_cast<double>(k::threshold_mask(d.x, 0.7f, 1, d.mask))),
    NIBBLE_CASE("n_of_m_mask 2:4", sink = static_cast<double>(k::n_of_m_mask(d.x, 2, 4, d.mask))),
    NIBBLE_CASE("n_of_m_mask 4:8", sink = static_cast<double>(k::n_of_m_mask(d.x, 4, 8, d.mask))),
    NIBBLE_CASE("apply_mask", k::apply_mask(d.x, d.mask, d.out)),
    NIBBLE_CASE("quantize to int8", k::quantize(d.x, kGrid, whole(d.codes))),
    NIBBLE_CASE("quantize to int16", k::quantize(d.x, kGrid, whole(d.words))),
    NIBBLE_CASE("dequantize int8", k::dequantize(view(d.codes), kGrid, d.out)),
    NIBBLE_CASE("fake_quantize", k::fake_quantize(d.x, kGrid, d.out)),
    NIBBLE_CASE("fake_quantize_stochastic", k::fake_quantize_stochastic(d.x, kGrid, 1, 0, d.out)),
    NIBBLE_CASE("quantization_error", sink = k::quantization_error(d.x, kGrid)),
    NIBBLE_CASE("quantize_rows of 1024", k::quantize_rows(d.x, d.rows(), std::span(d.scales).first(d.rows()), d.codes)),
    NIBBLE_CASE("quantize_groups_of_32",
                k::quantize_groups_of_32(d.x, d.scales, std::span(d.packed).first(d.x.size() / 2))),
    NIBBLE_CASE("dequantize_groups_of_32",
                k::dequantize_groups_of_32(std::span(d.packed).first(d.x.size() / 2), d.scales, d.out)),
    NIBBLE_CASE("pack_bits, 4 bits", k::pack_bits(d.bytes, 4, std::span(d.packed).first(d.x.size() / 2))),
    NIBBLE_CASE("pack_bits, 3 bits", k::pack_bits(d.bytes, 3, std::span(d.packed).first(packed_bytes(d.x.size(), 3)))),
    NIBBLE_CASE("unpack_bits, 4 bits", k::unpack_bits(std::span(d.packed).first(d.x.size() / 2), 4, d.bytes)),
    NIBBLE_CASE("transpose", k::transpose(d.x, d.rows(), kColumns, d.out)),
    NIBBLE_CASE("half_to_float", k::half_to_float(d.halves, d.out)),
    NIBBLE_CASE("float_to_half", k::float_to_half(d.in(), d.halves)),
    NIBBLE_CASE("float_to_bfloat16", k::float_to_bfloat16(d.in(), whole(d.halves))),
};
constexpr int kCount = static_cast<int>(std::size(kCases));

std::unique_ptr<Data> data;
std::vector<float> scratch;

}  // namespace

// What kernels_bench.mjs calls. `which`: 0 the kernel, 1 its twin, 2 memcpy of the input.
extern "C" {

/// Allocates and fills the data; n is a multiple of 1024.
void bench_setup(size_t n) {
  data.reset();
  data = std::make_unique<Data>(n);
}

/// The input's address, for a copy on the other side.
const float* bench_input() { return data->x.data(); }

/// Name of case i, or null after the last.
const char* bench_name(int i) { return i < kCount ? kCases[i].name : nullptr; }

void bench_run(int i, int which, int repeats) {
  for (int r = 0; r < repeats; ++r) {
    if (which == 0) kCases[i].kernel(*data);
    if (which == 1) kCases[i].twin(*data);
    if (which == 2) {
      std::memcpy(data->out.data(), data->x.data(), data->x.size() * sizeof(float));
      sink = data->out[data->out.size() / 2];
    }
  }
}

// Pruning ten million weights to 80 %: the limit by radix selection, the mask, the masked weights; and what the
// standard library needs for the limit alone, on a copy that is made before the clock starts.
void bench_kth() { sink = kth_of(kth_magnitude, *data).magnitude; }
void bench_kth_and_mask() {
  const Kth limit = kth_of(kth_magnitude, *data);
  sink = static_cast<double>(threshold_mask(data->x, limit.magnitude, 1, data->mask));
}
void bench_apply() { apply_mask(data->x, data->mask, data->out); }
void bench_nth_element_setup() {
  scratch.resize(data->x.size());
  std::transform(data->x.begin(), data->x.end(), scratch.begin(), [](float v) { return std::abs(v); });
}
void bench_nth_element() {
  const auto kth = scratch.begin() + static_cast<std::ptrdiff_t>(scratch.size() * 4 / 5);
  std::nth_element(scratch.begin(), kth, scratch.end());
  sink = *kth;
}
}

namespace {

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Sample {
  double best, median;
};
Sample summary(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return {times.front(), times[times.size() / 2]};
}

void measure(const char* title, size_t elements, int rounds) {
  bench_setup(elements);
  const double bytes = static_cast<double>(elements) * sizeof(float);
  std::printf("\n%s: %zu KB of floats, GB/s at 4 bytes an element\n", title, elements * sizeof(float) / 1024);
  std::printf("%-26s %8s %8s %8s %8s %9s %9s\n", "", "best", "median", "twin", "memcpy", "x twin", "x memcpy");
  for (int i = 0; i < kCount; ++i) {
    std::vector<double> times[3];
    int repeats[3];
    for (int which = 0; which < 3; ++which) {
      bench_run(i, which, 1);
      const double once = seconds([&] { bench_run(i, which, 1); });
      repeats[which] = std::clamp(static_cast<int>(0.004 / std::max(once, 1e-7)), 1, 4000);
    }
    for (int round = 0; round < rounds; ++round) {
      for (int which = 0; which < 3; ++which) {
        times[which].push_back(seconds([&] { bench_run(i, which, repeats[which]); }) / repeats[which]);
      }
    }
    const Sample kernel = summary(times[0]), twin = summary(times[1]), copy = summary(times[2]);
    std::printf("%-26s %8.2f %8.2f %8.2f %8.2f %9.2f %9.2f\n", kCases[i].name, bytes / kernel.best / 1e9,
                bytes / kernel.median / 1e9, bytes / twin.best / 1e9, bytes / copy.best / 1e9, twin.best / kernel.best,
                copy.best / kernel.best);
  }
}

void measure_pruning() {
  bench_setup(10'000'384);
  std::vector<double> kth, both, apply, standard;
  for (int round = 0; round < 5; ++round) {
    kth.push_back(seconds(bench_kth));
    both.push_back(seconds(bench_kth_and_mask));
    apply.push_back(seconds(bench_apply));
    bench_nth_element_setup();
    standard.push_back(seconds(bench_nth_element));
  }
  const double best = summary(kth).best;
  std::printf("\n10 million weights, best of 5: kth_magnitude %.1f ms, std::nth_element %.1f ms (%.1f times), ",
              best * 1e3, summary(standard).best * 1e3, summary(standard).best / best);
  std::printf("limit and mask %.1f ms, applying the mask %.1f ms\n", summary(both).best * 1e3,
              summary(apply).best * 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  const int megabytes = argc > 1 ? std::atoi(argv[1]) : 128;
  if (megabytes < 1 || megabytes > 512) {
    std::fprintf(stderr, "bench_kernels: expected 1 to 512 megabytes, got \"%s\"\n", argv[1]);
    return 2;
  }
  measure("within the second-level cache", 65536, 7);
  measure("beyond the caches", static_cast<size_t>(megabytes) << 18, 3);
  measure_pruning();
}
