// Installs what is missing, and only that: system packages by apt, the C++ toolchain, npm's packages.
//   npm run setup [-- tests]
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fail, is_main, root, run, say, version_at_least, which } from "./shell.mjs";
import { find_toolchain, has_own_emcc, install_toolchain } from "./toolchain.mjs";

const kNode = [20, 19];
const kCMake = [3, 25];

/// Programs and the Debian packages that have them. `check` is one name that must be on PATH, or a function.
const build_programs = () => [
  { check: "g++", package: "g++" },
  { check: "cmake", package: "cmake" },
  { check: "ninja", package: "ninja-build" },
  { check: "python3", package: "python3" },
  ...(has_own_emcc()
    ? []
    : [
        { check: llvm("clang"), package: "clang-19" },
        { check: llvm("wasm-ld"), package: "lld-19" },
        { check: llvm("llvm-ar"), package: "llvm-19" },
      ]),
];
const test_programs = () => [
  { check: find_chromium, package: "chromium" },
  { check: find_clang_format, package: "clang-format" },
];

const llvm = (name) => () => existsSync(join("/usr/lib/llvm-19/bin", name));

/// Chromium or Chrome, or undefined. CHROMIUM names another one.
export function find_chromium() {
  const mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome";
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  return process.env.CHROMIUM ?? names.map(which).find(Boolean) ?? (existsSync(mac) ? mac : undefined);
}

/// Version 14 where there is a choice: versions differ in small things.
export const find_clang_format = () => which("clang-format-14") ?? which("clang-format");

/// Makes the build (with `tests`: the tests, too) possible, or ends the program with what to install by hand.
export function setup({ tests = false } = {}) {
  if (!version_at_least(process.versions.node.split(".").map(Number), kNode)) {
    fail(
      `Node ${process.versions.node} is too old: ${kNode.join(".")} or newer is needed.`,
      "See https://nodejs.org/en/download",
    );
  }
  install_programs([...build_programs(), ...(tests ? test_programs() : [])]);
  const cmake =
    /(\d+)\.(\d+)/
      .exec(run("cmake", ["--version"], { quiet: true }))
      ?.slice(1)
      .map(Number) ?? [];
  if (!version_at_least(cmake, kCMake)) {
    fail(
      `CMake ${cmake.join(".")} is too old: ${kCMake.join(".")} or newer is needed.`,
      "See https://cmake.org/download",
    );
  }
  install_npm();
  if (!find_toolchain()) install_toolchain();
}

function install_programs(programs) {
  const lacking = () => programs.filter(({ check }) => !(typeof check === "function" ? check() : which(check)));
  const packages = lacking().map((program) => program.package);
  if (packages.length === 0) return;
  const command = ["apt-get", "install", "--no-install-recommends", "-y", ...packages];
  if (!which("apt-get")) {
    fail(
      `These programs are missing: ${packages.join(", ")} (under their Debian names).`,
      "Install them with your system's package manager, then run the same command again.",
      "Clang, lld and llvm are not needed where Emscripten 3.1.69 or newer is on PATH.",
    );
  }
  const prefix = process.getuid?.() === 0 ? [] : may_sudo() ? ["sudo", "-n"] : undefined;
  if (!prefix) {
    fail(
      `These packages are missing: ${packages.join(", ")}.`,
      "Installing them needs root. Run this, then the same command again:",
      `  sudo apt-get update && sudo ${command.join(" ")}`,
    );
  }
  say(`installing ${packages.join(", ")}`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const [first, ...others] = [...prefix, "apt-get"];
  run(first, [...others, "-qq", "update"], { env, why: "apt's package lists could not be read: is the network up?" });
  const why =
    `apt could not install ${packages.join(", ")}. Where this system has no LLVM 19, install Emscripten 3.1.69 or newer ` +
    "instead, so that emcc is on PATH: clang, lld and llvm are then not needed.";
  run(first, [...others, ...command.slice(1), "-qq"], { env, why });
  const still = lacking().map((program) => program.package);
  if (still.length > 0)
    fail(`apt says ${still.join(", ")} are installed, but the programs are not where they should be.`);
}

function may_sudo() {
  return which("sudo") !== undefined && run("sudo", ["-n", "true"], { quiet: true, may_fail: true }) !== undefined;
}

function install_npm() {
  if (npm_is_current()) return;
  say("installing npm packages");
  run("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    why: "npm could not install the packages of package-lock.json: is the network up?",
  });
}

/// Whether node_modules holds exactly what package-lock.json says; npm writes what it installed beside the packages.
function npm_is_current() {
  const installed = join(root, "node_modules", ".package-lock.json");
  if (!existsSync(installed)) return false;
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
  const have = JSON.parse(readFileSync(installed, "utf8")).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (!path.includes("node_modules/") || entry.optional) return true; // the workspaces; other systems' binaries
    return have[path] !== undefined && have[path].version === entry.version && existsSync(join(root, path));
  });
}

if (is_main(import.meta.url)) setup({ tests: process.argv.includes("tests") });
