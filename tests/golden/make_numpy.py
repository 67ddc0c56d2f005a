#!/usr/bin/env python3
"""Writes tests/core/golden/numpy.hpp: arrays, and what numpy 1.24 says about them.

    python3 tests/golden/make_numpy.py > tests/core/golden/numpy.hpp

An independent second opinion on percentiles, deviations, quantization, errors and histograms. The tests read the header
only; Python is needed to make it anew, not to run them.
"""
import numpy as np

PERCENTILES = [50, 75, 90, 97.5, 99, 99.5, 99.9, 99.99, 100]
BINS = 16

rng = np.random.default_rng(20240607)
SETS = {
    "gaussian": rng.normal(0.01, 0.05, 501),
    "laplace": rng.laplace(-0.2, 0.3, 337),
    "uniform": rng.uniform(-1, 3, 256),
    "outliers": np.concatenate([rng.normal(0, 1, 250), [40, -35, 28.5]]),
    "few_values": rng.integers(-3, 5, 128) * 0.25,
    "positive": rng.gamma(2, 0.5, 199),
    "single": np.array([0.375]),
}


def real(value):
    return repr(float(value))


def reals(values):
    return ", ".join(real(v) for v in values)


def floats(values):
    return ", ".join(np.format_float_scientific(v, unique=True) + "f" for v in values)


print("// Written by tests/golden/make_numpy.py with numpy %s. Do not edit." % np.__version__)
print("#pragma once\n\n#include <vector>\n\nnamespace nibble::golden {\n")
print("struct Set {")
print("  const char* name;")
print("  std::vector<float> values;")
print("  double mean, deviation, mean_magnitude;")
print("  /// Of the magnitudes at kPercentiles; of the values at (100 - p) / 2 and at its mirror image.")
print("  std::vector<double> magnitude_at, low_at, high_at;")
print("  /// scale = max|x| / 7 in float64, codes = clip(rint(x / scale), -7, 7), and the errors of scale * codes in float64.")
print("  double scale4;")
print("  std::vector<int> codes4;")
print("  double mse4, sqnr4, max_abs4, cosine4;")
print("  /// np.histogram over [min, max]; its outermost bin is closed.")
print("  std::vector<unsigned> counts;")
print("};\n")
print("inline const std::vector<double> kPercentiles = {%s};" % reals(PERCENTILES))
print("\ninline const std::vector<Set> kSets = {")
for name, values in SETS.items():
    x32 = values.astype(np.float32)
    x = x32.astype(np.float64)
    at = lambda data, p: np.percentile(data, p, method="inverted_cdf")
    magnitude = [at(np.abs(x), p) for p in PERCENTILES]
    low = [at(x, (100 - p) / 2) for p in PERCENTILES]
    high = [at(x, 100 - (100 - p) / 2) for p in PERCENTILES]
    scale = np.abs(x).max() / 7
    codes = np.clip(np.rint(x / scale), -7, 7)
    error = x - scale * codes
    cosine = x @ codes / (np.linalg.norm(x) * np.linalg.norm(codes))
    sqnr = 10 * np.log10((x**2).sum() / (error**2).sum()) if (error**2).sum() > 1e-25 else -1
    counts, _ = np.histogram(x, BINS)
    print('    {"%s",\n     {%s},' % (name, floats(x32)))
    print("     %s, %s, %s," % (real(x.mean()), real(x.std()), real(np.abs(x).mean())))
    for row in (magnitude, low, high):
        print("     {%s}," % reals(row))
    print("     %s,\n     {%s}," % (real(scale), ", ".join(str(int(c)) for c in codes)))
    print("     %s, %s, %s, %s," % (real((error**2).mean()), real(sqnr), real(np.abs(error).max()), real(cosine)))
    print("     {%s}}," % ", ".join(str(c) for c in counts))
print("};\n\n}  // namespace nibble::golden")
