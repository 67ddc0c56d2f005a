// `npm run check`: formatting and types. Nothing is changed; `npm run check -- fix` formats in place.
import { join } from "node:path";
import { build, files_below } from "./build.mjs";
import { find_clang_format, setup } from "./setup.mjs";
import { is_main, root, run, say } from "./shell.mjs";

const kRoots = ["core", "wasm", "web", "tests", ".tools", "package.json", "CMakePresets.json", "README.md"];
const kCpp = /\.(cpp|hpp)$/;
const kText = /\.(ts|mts|tsx|mjs|js|json|css|html|md)$/;

/// Gives the names of the checks that failed; their output has been shown.
export function check_format({ fix = false } = {}) {
  const files = kRoots.flatMap((path) => files_below(path));
  const cpp = files.filter((file) => kCpp.test(file));
  const text = files.filter((file) => kText.test(file));
  const prettier = join(root, "node_modules", "prettier", "bin", "prettier.cjs");
  const ask = (name, program, args) => (run(program, args, { cwd: root, may_fail: true }) === undefined ? [name] : []);
  return [
    ...ask("clang-format", find_clang_format(), [...(fix ? ["-i"] : ["--dry-run", "-Werror"]), ...cpp]),
    ...ask("prettier", process.execPath, [prettier, fix ? "--write" : "--check", "--log-level", "warn", ...text]),
  ];
}

/// Type-checks the package, the page and the tests; gives the names of those that failed.
export function check_types() {
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  return ["wasm", "web", "tests"].filter((project) => {
    const args = [tsc, "--project", project, "--noEmit", "--emitDeclarationOnly", "false", "--declaration", "false"];
    return run(process.execPath, args, { cwd: root, may_fail: true }) === undefined;
  });
}

if (is_main(import.meta.url)) {
  setup({ tests: true });
  // The page and the tests are checked against the package's published types.
  for (const target of ["module", "package"]) await build(target);
  const failed = [...check_format({ fix: process.argv.includes("fix") }), ...check_types()];
  say(failed.length === 0 ? "formatting and types are right" : `not right: ${failed.join(", ")}`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}
