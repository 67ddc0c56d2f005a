// Arrays in files (npy, IDX): what is not held where it is large.

/** Bytes of a file beyond which its samples stay in it and are read in batches, unless the caller says otherwise. */
export const kHeld = 2 ** 30;

/** Whether a file that begins with these four bytes is an array whose rows can be read one by one. */
export function isArray([a, b, c, d]: Uint8Array): boolean {
  const isNpy = a === 0x93 && b === 0x4e && c === 0x55 && d === 0x4d; // "\x93NUMPY"
  const isIdx = a === 0 && b === 0 && c! >= 8 && c! <= 14 && d! > 0;
  return isNpy || isIdx;
}
