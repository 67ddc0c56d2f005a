// `npm test`: every test there is, with what failed and one line at the end. A stage that cannot run counts as a failure
// and does not keep the others from running. `-- format` adds the formatting check.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { cpp_environment } from "./build.mjs";
import { check_format, check_types } from "./check.mjs";
import { find_chromium, setup } from "./setup.mjs";
import { root, say } from "./shell.mjs";

const kNothing = { passed: 0, failed: 0 };
const kFailure = { passed: 0, failed: 1 };

/// Builds in a program of its own: a failed build ends that, not the tests.
function build(target) {
  return (
    spawnSync(process.execPath, [join(root, ".tools", "build.mjs"), target], {
      cwd: root,
      stdio: ["ignore", "inherit", "inherit"],
    }).status === 0
  );
}

/// doctest's cases of one preset, by the summary line that each test program prints.
function ctest(preset) {
  const { status, stdout, stderr } = spawnSync("ctest", ["--preset", preset, "--verbose"], {
    cwd: root,
    env: { ...process.env, ...cpp_environment() },
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    maxBuffer: 256 << 20,
  });
  const plain = (stdout ?? "").replace(/\x1b\[[\d;]*m/g, ""); // doctest colors its output even into a pipe, as WebAssembly
  const lines = [...plain.matchAll(/\[doctest\] test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed/g)];
  const passed = lines.reduce((sum, line) => sum + Number(line[2]), 0);
  const failed = lines.reduce((sum, line) => sum + Number(line[3]), 0);
  const broken = status !== 0 || passed === 0;
  if (broken) console.log(`${stdout ?? ""}${stderr ?? ""}`);
  // A program that crashed printed no summary; no test at all is a failure too.
  return { passed, failed: Math.max(failed, broken ? 1 : 0), what: broken ? doctest_failures(plain) : [] };
}

/// The lines that name the cases that failed (doctest names no others), and what sanitizers and ctest itself say.
const doctest_failures = (output) =>
  output
    .split("\n")
    .map((line) => line.replace(/^\d+: /, "").trim())
    .filter((line) =>
      /^TEST CASE:|ERROR:|runtime error|SUMMARY: \w+Sanitizer|\*\*\*(Failed|Timeout|Exception)/.test(line),
    );

function vitest(project) {
  const report = join(root, "build", `vitest-${project}.json`);
  mkdirSync(join(root, "build"), { recursive: true });
  rmSync(report, { force: true });
  const args = ["run", "--config", "tests/vitest.config.mts", "--project", project];
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const program = join(root, "node_modules", "vitest", "vitest.mjs");
  const { status } = spawnSync(process.execPath, [program, ...args, ...reporters], {
    cwd: root,
    env: { ...process.env, CHROMIUM: find_chromium() },
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (!existsSync(report)) return kFailure;
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
  if (numPendingTests > 0) say(`${numPendingTests} tests were skipped`);
  const what = testResults.flatMap(({ name, status: outcome, message, assertionResults }) => {
    const failed = assertionResults.filter((test) => test.status === "failed");
    const file = relative(root, name);
    // A file that could not be loaded has no tests.
    if (failed.length === 0) return outcome === "failed" ? [`${file}: ${first_lines(message)}`] : [];
    return failed.map(({ fullName, failureMessages }) => `${file}: ${fullName}: ${first_lines(failureMessages[0])}`);
  });
  const failed = Math.max(numFailedTests, status !== 0 || numPassedTests === 0 ? 1 : 0);
  return { passed: numPassedTests, failed, what };
}

/// Of a message with the stack of calls below it.
const first_lines = (message = "") =>
  message
    .replace(/\x1b\[[\d;]*m/g, "")
    .split(/\n\s+at /)[0]
    .trim()
    .slice(0, 1000);

const checks = (failed) => ({ passed: 0, failed: failed.length, what: failed });

/// In this order what most changes break is known first. `needs` are stages whose product a stage works on.
const stages = [
  { name: "native build", run: () => build("native") },
  { name: "C++ tests, native", needs: ["native build"], run: () => ctest("native") },
  { name: "WebAssembly build", run: () => build("wasm") },
  { name: "C++ tests as WebAssembly", needs: ["WebAssembly build"], run: () => ctest("wasm") },
  { name: "package", needs: ["WebAssembly build"], run: () => build("package") },
  { name: "types", needs: ["package"], run: () => checks(check_types()) },
  ...(process.argv.includes("format") ? [{ name: "formatting", run: () => checks(check_format()) }] : []),
  { name: "package and page state tests", needs: ["package"], run: () => vitest("units") },
  { name: "page", needs: ["package"], run: () => build("page") },
  { name: "page in Chromium", needs: ["page"], run: () => vitest("page") },
  { name: "build with sanitizers", run: () => build("sanitize") },
  { name: "C++ tests with sanitizers", needs: ["build with sanitizers"], run: () => ctest("sanitize") },
];

const total = { passed: 0, failed: 0 };
const summary = [];
const failures = [];
const kMostFailures = 20; // of one stage; the rest is above
let whole = false;
// The last line is there even when the set-up ends the program.
process.on("exit", () => {
  if (!whole) total.failed++;
  if (failures.length > 0) console.log(`\nNot right:\n${failures.join("\n")}`);
  if (summary.length > 0) console.log(`\n${summary.join("\n")}\n`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
});

setup({ tests: true });
const broken = new Set();
for (const { name, needs = [], run } of stages) {
  const missing = needs.find((need) => broken.has(need));
  let result;
  if (missing) {
    result = kFailure;
    summary.push(`${name}: could not run without "${missing}"`);
  } else {
    say(`--- ${name}`);
    const started = Date.now();
    const outcome = run();
    result = typeof outcome === "boolean" ? (outcome ? kNothing : kFailure) : outcome;
    const counts =
      result.passed > 0 ? `${result.passed} passed, ${result.failed} failed` : result.failed > 0 ? "failed" : "ok";
    summary.push(`${name}: ${counts} (${((Date.now() - started) / 1000).toFixed(0)} s)`);
    failures.push(...(result.what ?? []).slice(0, kMostFailures).map((line) => `  ${name}: ${line}`));
  }
  if (missing || (result.failed > 0 && result.passed === 0)) broken.add(name);
  total.passed += result.passed;
  total.failed += result.failed;
}
whole = true;
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
