// Numbers as text: short, with units, the same everywhere on the page.
import { language } from "./language";

const cache = new Map<string, Intl.NumberFormat>();
function format(value: number, options: Intl.NumberFormatOptions): string {
  const key = language.value + JSON.stringify(options);
  let formatter = cache.get(key);
  if (!formatter) cache.set(key, (formatter = new Intl.NumberFormat(language.value, options)));
  return formatter.format(value);
}

/** 1,234 */
export const count = (value: number): string => format(value, { maximumFractionDigits: 0 });

/** 25.3 %; never "100 %" or "0 %" unless it is exact. */
export function percent(share: number): string {
  const value = share * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  const digits = value >= 99.95 && value < 100 ? 99.9 : value;
  return `${format(digits, { maximumFractionDigits: digits < 10 || digits > 99 ? 1 : 0 })} %`;
}

/** 97.8 %: a share of samples, to a tenth; never "100 %" or "0 %" unless it is exact. */
export function accuracy(share: number): string {
  if (share === 0 || share === 1) return `${share * 100} %`;
  const value = Math.max(0.1, Math.min(99.9, share * 100));
  return `${format(value, { minimumFractionDigits: 1, maximumFractionDigits: 1 })} %`;
}

/** Percentage points of a difference of shares: 1.2; "< 0.1" where there is one at all. */
export function points(difference: number): string {
  const value = difference * 100;
  if (value > 0 && value < 0.1) return "< 0.1";
  return format(value, { maximumFractionDigits: Math.abs(value) < 10 ? 1 : 0 }).replace(/^-/, "−");
}

const UNITS = ["B", "KB", "MB", "GB"];

/** Decimal units (1 KB = 1000 bytes), three significant digits. */
export function bytes(value: number): string {
  const [number, unit] = bytesParts(value);
  return `${number} ${unit}`;
}

/** Number and unit apart, for the big display. */
export function bytesParts(value: number): [string, string] {
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return [format(value, { minimumFractionDigits: digits, maximumFractionDigits: digits }), UNITS[unit]];
}

/** Bits per weight, on average: one digit where it is not a whole number. */
export const bits = (value: number): string => format(value, { maximumFractionDigits: 1 });

/** A weight or an error: three or four significant digits, scientific where tiny. */
export function real(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size < 1e-4 || size >= 1e6
    ? value.toExponential(2).replace("e-", "e−").replace("e+", "e").replace(/^-/, "−")
    : format(value, { maximumSignificantDigits: 4 }).replace(/^-/, "−");
}

/** 42.1 dB; null is no error at all. */
export const decibels = (value: number): string =>
  `${format(value, { minimumFractionDigits: 1, maximumFractionDigits: 1 }).replace(/^-/, "−")} dB`;

/** 64 × 3 × 3 × 3 */
export const shape = (dimensions: readonly (number | string)[]): string =>
  dimensions.length === 0 ? "scalar" : dimensions.join(" × ");

/** 0.4 s, 12 s, 3 min */
export function seconds(value: number): string {
  if (value < 10) return `${format(value, { maximumFractionDigits: 1 })} s`;
  return value < 100 ? `${count(value)} s` : `${count(value / 60)} min`;
}
