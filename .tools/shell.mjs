// Small helpers for the set-up and build scripts: run a program, say a line, stop with a sentence. No dependencies.
import { spawnSync } from "node:child_process";
import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/// The top of the project.
export const root = resolve(fileURLToPath(new URL("..", import.meta.url)));

export const say = (text) => console.error(`nibble: ${text}`);

/// Ends the program: the first line says what is wrong, the others what to do.
export function fail(...lines) {
  console.error(`\nnibble: ${lines.join("\n        ")}`);
  process.exit(1);
}

/// Whether this file is the program itself and not imported by another.
export const is_main = (url) => process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(url);

/// Runs a program to its end with its output shown; a failure ends this program with `why`, or gives undefined where it
/// `may_fail`. `quiet` shows the output only after a failure and returns it.
export function run(program, args, { cwd, env, why, quiet = false, may_fail = false } = {}) {
  const result = spawnSync(program, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: quiet ? ["ignore", "pipe", "pipe"] : ["ignore", "inherit", "inherit"],
    encoding: "utf8",
    maxBuffer: 256 << 20,
  });
  if (result.status === 0) return result.stdout ?? "";
  if (may_fail) return undefined;
  if (quiet) console.error(`${result.stdout ?? ""}${result.stderr ?? ""}`);
  const ended = result.error?.message ?? (result.signal ? `stopped by ${result.signal}` : `exit code ${result.status}`);
  fail(why ?? "A step failed.", `The command was: ${[program, ...args].join(" ")} (${ended})`);
}

/// Where `name` is on PATH, or undefined.
export function which(name) {
  for (const folder of (process.env.PATH ?? "").split(":")) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // not in this folder
    }
  }
  return undefined;
}

/// Compares two versions, each a list of numbers.
export function version_at_least(found, wanted) {
  for (let i = 0; i < wanted.length; i++) {
    if ((found[i] ?? 0) !== wanted[i]) return (found[i] ?? 0) > wanted[i];
  }
  return true;
}
