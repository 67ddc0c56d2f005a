# Prints the table kTails of core/codec/level_prior.cpp: -log2 of the share of a generalised normal distribution's
# magnitudes above x, in 1 / 1024 bit, for x in steps of an eighth of the mean magnitude. Needs Python alone.
#   python3 tests/golden/make_tails.py
import math

EXPONENTS = [2, 1.4, 1, 0.7]
STEPS = 64


def log_upper_gamma(s, z):
    """Natural logarithm of Q(s, z), the regularised upper incomplete gamma function (DLMF 8.2.4)."""
    if z == 0:
        return 0.0
    front = s * math.log(z) - z - math.lgamma(s)
    if z < s + 1:  # power series of the lower one, DLMF 8.7.1
        term = total = 1 / s
        n = s
        while term > total * 1e-17:
            n += 1
            term *= z / n
            total += term
        return math.log1p(-math.exp(front) * total)
    # Continued fraction, DLMF 8.9.2, from its tail forwards.
    fraction = 0.0
    for k in range(400, 0, -1):
        fraction = k * (s - k) / (z + 2 * k + 1 - s + fraction)
    return front - math.log(z + 1 - s + fraction)


for beta in EXPONENTS:
    unit = math.gamma(1 / beta) / math.gamma(2 / beta)  # the scale whose mean magnitude is 1
    row = [
        round(-1024 * log_upper_gamma(1 / beta, (i / 8 / unit) ** beta) / math.log(2)) for i in range(STEPS + 1)
    ]
    print("{" + ", ".join(map(str, row)) + "},")
