// The error map's color scale, and where a pointer stands on a chart.
import { expect, test } from "vitest";
import { channelAt } from "../../web/src/charts/channel_bars";
import { ramp, shade, shadeTable } from "../../web/src/charts/colors";
import { cellAt } from "../../web/src/charts/error_map";
import { classesAt, EDGE } from "../../web/src/charts/confusion";
import { smoothed } from "../../web/src/charts/curve";
import { layerAt, middleOf, rangeOf } from "../../web/src/charts/depth";
import { divergingTable, readable, shadeOf } from "../../web/src/charts/diverging";
import { binAt } from "../../web/src/charts/histogram";
import { pixelsOf } from "../../web/src/charts/picture";
import { gridOf, layoutOf } from "../../web/src/charts/tiles";

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

test("a point on the confusion matrix is a pair of classes; the names beside it are none", () => {
  expect(classesAt(EDGE, EDGE, 226, 226, 10)).toEqual([0, 0]);
  expect(classesAt(225, EDGE + 21, 226, 226, 10)).toEqual([1, 9]);
  expect(classesAt(10, 100, 226, 226, 10)).toBeNull();
});

test("the layer under a point is the one whose middle is nearest", () => {
  for (const n of [1, 4, 37]) for (let i = 0; i < n; i++) expect(layerAt(middleOf(i, 640, n), 640, n)).toBe(i);
  expect(layerAt(3, 640, 4)).toBeNull();
});

test("decibels are drawn from whole tens, 20 dB always among them", () => {
  expect(rangeOf({ activations: [null], weights: [null] })).toEqual([10, 40]);
  expect(rangeOf({ activations: [47, -3], weights: [55, 12] })).toEqual([-10, 60]);
});

test("smoothing starts with the first number and forgets it", () => {
  expect(smoothed([2, 2, 2])).toEqual([2, 2, 2].map((value) => expect.closeTo(value, 12)));
  const steps = smoothed([...new Array<number>(5).fill(1), ...new Array<number>(500).fill(0)]);
  expect(steps[4]).toBeCloseTo(1, 12);
  expect(steps.at(-1)).toBeLessThan(1e-6);
  expect(smoothed([null, 3])[0]).toBeNaN();
});

test("zero has the ground's color, and the signs have one each", () => {
  const palette = {
    text: "",
    muted: "",
    line: "",
    surface: "rgb(255 255 255)",
    before: "rgb(0 0 200)",
    after: "rgb(200 0 0)",
  };
  const table = divergingTable(palette);
  const rgb = (word: number): number[] => [word & 255, (word >> 8) & 255, (word >> 16) & 255];
  expect(rgb(table[shadeOf(0, 5)]!)).toEqual([255, 255, 255]);
  expect(rgb(table[shadeOf(5, 5)]!)).toEqual([200, 0, 0]);
  expect(rgb(table[shadeOf(-9, 5)]!)).toEqual([0, 0, 200]);
  expect(shadeOf(3, 0)).toBe(127);
});

test("numbers on a color are written in what can be read better", () => {
  const palette = { text: "rgb(20 20 20)", muted: "", line: "", surface: "rgb(255 255 255)", before: "", after: "" };
  expect(readable(palette, "rgb(116 136 160)")).toBe(palette.text);
  expect(readable(palette, "rgb(150 50 5)")).toBe(palette.surface);
});

test("the shape of a value says how it is drawn", () => {
  expect(layoutOf([1, 20, 8, 6])).toEqual({ tiles: 20, rows: 8, columns: 6 });
  expect(layoutOf([20, 8, 6])).toEqual({ tiles: 20, rows: 8, columns: 6 });
  expect(layoutOf([1, 10])).toEqual({ tiles: 10, rows: 1, columns: 1 });
  expect(layoutOf([1, 64, 1, 1])).toEqual({ tiles: 64, rows: 1, columns: 1 });
  expect(layoutOf([7, 16])).toEqual({ tiles: 1, rows: 7, columns: 16 });
  const { across, tile, height } = gridOf({ tiles: 20, rows: 8, columns: 8 }, 300);
  expect(across * tile + (across - 1) * 3).toBeCloseTo(300, 9);
  expect(height).toBeCloseTo(4 * tile + 9, 9);
});

test("samples become pixels in any layout", () => {
  const at = (values: Uint8Array | Float32Array, info: Parameters<typeof pixelsOf>[1], i: number) =>
    Array.from(pixelsOf(values, info)!.subarray(4 * i, 4 * i + 4));
  const gray = Uint8Array.of(0, 50, 100, 255);
  expect(at(gray, { shape: [2, 2], layout: "hw", dtype: "uint8" }, 1)).toEqual([50, 50, 50, 255]);
  const planes = Uint8Array.of(1, 2, 3, 4, 5, 6);
  expect(at(planes, { shape: [3, 1, 2], layout: "chw", dtype: "uint8" }, 1)).toEqual([2, 4, 6, 255]);
  expect(at(planes, { shape: [1, 2, 3], layout: "hwc", dtype: "uint8" }, 1)).toEqual([4, 5, 6, 255]);
  expect(at(Float32Array.of(-1, 0, 1), { shape: [1, 3], layout: "hw", dtype: "float32" }, 2)).toEqual([
    255, 255, 255, 255,
  ]);
  expect(pixelsOf(gray, { shape: [4], layout: "features", dtype: "uint8" })).toBeNull();
});
