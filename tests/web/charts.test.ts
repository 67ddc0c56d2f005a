// The error map's color scale, and where a pointer stands on a chart.
import { expect, test } from "vitest";
import { channelAt } from "../../web/src/charts/channel_bars";
import { ramp, shade, shadeTable } from "../../web/src/charts/colors";
import { cellAt } from "../../web/src/charts/error_map";
import { binAt } from "../../web/src/charts/histogram";

test("the color scale has three decades below one standard deviation, and no error has a color of its own", () => {
  expect(shade(0, 2)).toBe(0);
  expect(shade(2, 2)).toBe(255);
  expect(shade(200, 2)).toBe(255);
  expect(shade(0.2, 2) - shade(0.02, 2)).toBe(85);
  expect(shade(1e-30, 2)).toBeGreaterThan(0);
});

test("the table gives the scale's colors, at most one off", () => {
  for (const deviation of [0, 1e-3, 0.07, 5]) {
    const table = shadeTable(deviation);
    for (let error = 1e-7; error < 10; error *= 1.037) {
      const bits = new Uint32Array(Float32Array.of(error).buffer)[0]!;
      expect(Math.abs(table[bits >>> 16]! - shade(error, deviation))).toBeLessThanOrEqual(1);
    }
    expect(table[0]).toBe(0);
  }
});

test.each([false, true])(
  "lightness is steady along the colors (dark theme: %s), so the order shows without hues",
  (dark) => {
    const lightness = Array.from(
      ramp(dark),
      (c) => 0.2126 * (c & 255) + 0.7152 * ((c >> 8) & 255) + 0.0722 * ((c >> 16) & 255),
    );
    // Eight colors apart: neighbors may differ by less than the rounding of their channels.
    const steps = lightness.slice(8).map((value, i) => value - lightness[i]!);
    expect(steps.every((step) => (dark ? step > 0 : step < 0))).toBe(true);
    expect(Math.abs(lightness.at(-1)! - lightness[0]!)).toBeGreaterThan(150);
  },
);

test("points on charts are told apart from points beside them", () => {
  expect(cellAt(99, 0, 100, 50, { rows: 5, columns: 10, cells: new Float32Array(50) })).toEqual([0, 9]);
  expect(cellAt(100, 0, 100, 50, { rows: 5, columns: 10, cells: new Float32Array(50) })).toBeNull();
  expect(binAt(8, 216, 100)).toBe(0);
  expect(binAt(207, 216, 100)).toBe(99);
  expect(binAt(7, 216, 100)).toBeNull();
  expect(channelAt(50, 100, 3)).toBe(1);
  expect(channelAt(-1, 100, 3)).toBeNull();
});
