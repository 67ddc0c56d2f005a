// What a page would write without Nibble: each operation as one plain loop over typed arrays, in the way that is usual and
// not slow on purpose (nothing allocated, no function shared between
// loops that would see arrays of several types).

/// The arrays that the loops work on; x as the kernels have it.
function prepare(x) {
  const n = x.length;
  const y = x.map((v, i) => v + 1e-5 * (i % 1000));
  return {
    x,
    y,
    out: new Float32Array(n),
    codes: Int8Array.from(x, (v) => Math.max(-127, Math.min(127, Math.round(v / 0.03)))),
    words: new Int16Array(n),
    bytes: Uint8Array.from(x, (v) => Math.round(v / 0.03) & 15),
    packed: new Uint8Array(n / 2),
    scales: new Float32Array(n / 32),
    mask: new Uint32Array(n / 32).fill(0x9249a4d2),
    bins: new Uint32Array(256),
    columns: 1024,
    result: 0,
  };
}

const loops = {
  abs_max(d) {
    const { x } = d;
    let max = 0;
    for (let i = 0; i < x.length; i++) {
      const v = Math.abs(x[i]);
      if (v > max) max = v;
    }
    d.result = max;
  },
  min_max(d) {
    const { x } = d;
    let min = Infinity;
    let max = -Infinity;
    for (let i = 0; i < x.length; i++) {
      const v = x[i];
      if (v < min) min = v;
      if (v > max) max = v;
    }
    d.result = min + max;
  },
  moments(d) {
    const { x } = d;
    let sum = 0;
    let sum_abs = 0;
    let squares = 0;
    let zeros = 0;
    for (let i = 0; i < x.length; i++) {
      const v = x[i];
      sum += v;
      sum_abs += Math.abs(v);
      squares += (v - 0.1) * (v - 0.1);
      if (v === 0) zeros++;
    }
    d.result = sum + sum_abs + squares + zeros;
  },
  "histogram, 256 bins"(d) {
    const { x, bins } = d;
    const per_unit = 256 / 4;
    for (let i = 0; i < x.length; i++) {
      let bin = Math.floor((x[i] + 2) * per_unit);
      if (bin < 0) bin = 0;
      else if (bin > 255) bin = 255;
      bins[bin]++;
    }
  },
  difference(d) {
    const { x, y } = d;
    let error = 0;
    let before = 0;
    let after = 0;
    let product = 0;
    let max = 0;
    for (let i = 0; i < x.length; i++) {
      const a = x[i];
      const b = y[i];
      const gap = a - b;
      error += gap * gap;
      before += a * a;
      after += b * b;
      product += a * b;
      if (Math.abs(gap) > max) max = Math.abs(gap);
    }
    d.result = error + before + after + product + max;
  },
  "kth_magnitude at 80 %"(d) {
    for (let i = 0; i < d.x.length; i++) d.out[i] = Math.abs(d.x[i]);
    d.out.sort();
    d.result = d.out[Math.floor(d.out.length * 0.8)];
  },
  count_magnitudes(d) {
    const { x } = d;
    let zero = 0;
    let below = 0;
    let equal = 0;
    for (let i = 0; i < x.length; i++) {
      const v = Math.abs(x[i]);
      if (v === 0) zero++;
      if (v < 0.5) below++;
      if (v === 0.5) equal++;
    }
    d.result = zero + below + equal;
  },
  threshold_mask(d) {
    const { x, mask } = d;
    let kept = 0;
    for (let i = 0; i < x.length; i += 32) {
      let word = 0;
      for (let j = 0; j < 32; j++) {
        if (Math.abs(x[i + j]) > 0.7) {
          word |= 1 << j;
          kept++;
        }
      }
      mask[i >> 5] = word;
    }
    d.result = kept;
  },
  apply_mask(d) {
    const { x, mask, out } = d;
    for (let i = 0; i < x.length; i++) out[i] = (mask[i >> 5] >> (i & 31)) & 1 ? x[i] : 0;
  },
  "quantize to int8"(d) {
    const { x, codes } = d;
    for (let i = 0; i < x.length; i++) {
      let code = Math.round(x[i] * (1 / 0.03));
      if (code < -127) code = -127;
      else if (code > 127) code = 127;
      codes[i] = code;
    }
  },
  "quantize to int16"(d) {
    const { x, words } = d;
    for (let i = 0; i < x.length; i++) {
      let code = Math.round(x[i] * (1 / 0.03));
      if (code < -127) code = -127;
      else if (code > 127) code = 127;
      words[i] = code;
    }
  },
  "dequantize int8"(d) {
    const { codes, out } = d;
    for (let i = 0; i < codes.length; i++) out[i] = 0.03 * codes[i];
  },
  fake_quantize(d) {
    const { x, out } = d;
    for (let i = 0; i < x.length; i++) {
      let code = Math.round(x[i] * (1 / 0.03));
      if (code < -127) code = -127;
      else if (code > 127) code = 127;
      out[i] = 0.03 * code;
    }
  },
  fake_quantize_stochastic(d) {
    const { x, out } = d;
    for (let i = 0; i < x.length; i++) {
      let code = Math.floor(x[i] * (1 / 0.03) + Math.random());
      if (code < -127) code = -127;
      else if (code > 127) code = 127;
      out[i] = 0.03 * code;
    }
  },
  quantization_error(d) {
    const { x } = d;
    let sum = 0;
    for (let i = 0; i < x.length; i++) {
      let code = Math.round(x[i] * (1 / 0.03));
      if (code < -127) code = -127;
      else if (code > 127) code = 127;
      const error = x[i] - 0.03 * code;
      sum += error * error;
    }
    d.result = sum;
  },
  "quantize_rows of 1024"(d) {
    const { x, codes, scales, columns } = d;
    for (let start = 0; start < x.length; start += columns) {
      const end = start + columns;
      let max = 0;
      for (let i = start; i < end; i++) {
        const v = Math.abs(x[i]);
        if (v > max) max = v;
      }
      const scale = max === 0 ? 1 : max / 127;
      const inverse = 1 / scale;
      scales[start / columns] = scale;
      for (let i = start; i < end; i++) {
        let code = Math.round(x[i] * inverse);
        if (code < -127) code = -127;
        else if (code > 127) code = 127;
        codes[i] = code;
      }
    }
  },
  quantize_groups_of_32(d) {
    const { x, scales, packed } = d;
    for (let start = 0; start < x.length; start += 32) {
      let max = 0;
      for (let i = start; i < start + 32; i++) {
        const v = Math.abs(x[i]);
        if (v > max) max = v;
      }
      const scale = max === 0 ? 1 : max / 7;
      scales[start >> 5] = scale;
      const inverse = 1 / scale;
      for (let i = start; i < start + 32; i += 2) {
        const even = Math.round(x[i] * inverse);
        const odd = Math.round(x[i + 1] * inverse);
        packed[i >> 1] = (even & 15) | (odd << 4);
      }
    }
  },
  dequantize_groups_of_32(d) {
    const { packed, scales, out } = d;
    for (let i = 0; i < out.length; i += 2) {
      const byte = packed[i >> 1];
      const scale = scales[i >> 5];
      out[i] = scale * ((byte << 28) >> 28);
      out[i + 1] = scale * ((byte << 24) >> 28);
    }
  },
  "pack_bits, 4 bits"(d) {
    const { bytes, packed } = d;
    for (let i = 0; i < bytes.length; i += 2) packed[i >> 1] = (bytes[i] & 15) | (bytes[i + 1] << 4);
  },
  "unpack_bits, 4 bits"(d) {
    const { bytes, packed } = d;
    for (let i = 0; i < bytes.length; i += 2) {
      bytes[i] = packed[i >> 1] & 15;
      bytes[i + 1] = packed[i >> 1] >> 4;
    }
  },
  transpose(d) {
    const { x, out, columns } = d;
    const rows = x.length / columns;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) out[c * rows + r] = x[r * columns + c];
    }
  },
};

export const plain_loops = { prepare, loops };
