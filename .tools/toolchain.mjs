// Finds Emscripten and the C++ header libraries, or puts them into a private prefix.
//
// An `emcc` of kMinimum or newer on PATH is used as it is. Otherwise, on Debian and its relatives, the packages of
// Debian 13 are downloaded by apt (which checks their signatures) and unpacked into the user's cache folder. The
// system itself is not touched: nothing is configured, no package database is written.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fail, run, say, version_at_least, which } from "./shell.mjs";

const kMinimum = [3, 1, 69];
/// Raise when the package list or the layout of the prefix changes: an older prefix is then left aside.
const kLayout = 1;
const kSuite = "trixie";
const kHeaders = ["libxsimd-dev", "doctest-dev", "libprotozero-dev", "nlohmann-json3-dev"];
const kEmscripten = ["emscripten", "node-acorn", "binaryen", "libc6", "libstdc++6", "libgcc-s1"];
const kHeaderFiles = ["xsimd/xsimd.hpp", "doctest/doctest.h", "protozero/pbf_reader.hpp", "nlohmann/json.hpp"];

const cache = () => join(process.env.NIBBLE_CACHE ?? process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "nibble");
const prefix = () => join(cache(), `toolchain-${kLayout}`);

/// The toolchain as it can be used right now, or undefined where a part is missing.
/// Returns {emcc: path, emscripten: its folder, env: extra environment, include: folder of the header libraries}.
export function find_toolchain() {
  const stamp = join(prefix(), "ready.json");
  const own = existsSync(stamp) ? JSON.parse(readFileSync(stamp, "utf8")) : undefined;
  const on_path = emcc_on_path();
  if (on_path) {
    const include = own?.headers ?? system_headers();
    if (!include) return undefined;
    return { emcc: on_path, emscripten: folder_of(on_path), env: {}, include };
  }
  if (!own?.emscripten) return undefined;
  return {
    emcc: join(own.emscripten, "emcc"),
    emscripten: own.emscripten,
    env: { EM_CONFIG: join(prefix(), "emscripten.py"), PATH: [own.emscripten, process.env.PATH].join(":") },
    include: own.headers,
  };
}

/// True where the emcc on PATH is good enough; LLVM then comes with it.
export const has_own_emcc = () => emcc_on_path() !== undefined;

/// Makes find_toolchain() succeed, or ends the program with a sentence saying what to do.
export function install_toolchain() {
  const ready = find_toolchain();
  if (ready) return ready;
  if (!which("apt-get") || !which("dpkg-deb")) {
    fail(
      "Emscripten is missing, and this system has no apt to get it with.",
      `Install Emscripten ${kMinimum.join(".")} or newer (https://emscripten.org/docs/getting_started/downloads.html, or 'brew install emscripten')`,
      "so that 'emcc' is on PATH, and the header libraries xsimd (13.2 or newer), doctest, protozero and nlohmann-json where",
      "CMake looks for them (or set NIBBLE_INCLUDE to a folder that holds all four). Then run the same command again.",
    );
  }
  const need = emcc_on_path() ? kHeaders : [...kEmscripten, ...kHeaders];
  unpack(download(need));
  const root = join(prefix(), "root");
  const headers = join(prefix(), "include");
  link_headers(root, headers);
  const ready_file = { headers };
  if (need.includes("emscripten")) ready_file.emscripten = configure_emscripten(root);
  writeFileSync(join(prefix(), "ready.json"), JSON.stringify(ready_file));
  return (
    find_toolchain() ??
    fail("The toolchain was unpacked but does not answer.", `Remove ${prefix()} and run the same command again.`)
  );
}

function emcc_on_path() {
  const emcc = which("emcc");
  if (!emcc) return undefined;
  const text = spawnSync(emcc, ["--version"], { encoding: "utf8" }).stdout ?? "";
  const found = /(\d+)\.(\d+)\.(\d+)/.exec(text)?.slice(1).map(Number);
  if (found && version_at_least(found, kMinimum)) return emcc;
  say(`emcc on PATH is ${found?.join(".") ?? "unreadable"}, older than ${kMinimum.join(".")}: not used`);
  return undefined;
}

/// The folder with Emscripten's CMake platform file: emcc on PATH may be a link or a wrapper elsewhere.
function folder_of(emcc) {
  const platform = ["cmake", "Modules", "Platform", "Emscripten.cmake"];
  const asked = spawnSync("em-config", ["EMSCRIPTEN_ROOT"], { encoding: "utf8" }).stdout?.trim();
  const folders = [asked, dirname(realpathSync(emcc)), "/usr/share/emscripten"];
  const found = folders.find((folder) => folder && existsSync(join(folder, ...platform)));
  return (
    found ??
    fail(
      `${emcc} is used, but its folder with ${join(...platform)} is nowhere to be found.`,
      "Is that Emscripten whole?",
    )
  );
}

function system_headers() {
  const folders = [process.env.NIBBLE_INCLUDE, "/opt/homebrew/include", "/usr/local/include"];
  return folders.find((folder) => folder && kHeaderFiles.every((file) => existsSync(join(folder, file))));
}

/// Downloads the packages, one file each; a file that is already whole is kept, so a broken download goes on where it was.
function download(packages) {
  const folder = join(prefix(), "packages");
  const lists = join(prefix(), "lists");
  mkdirSync(join(lists, "partial"), { recursive: true });
  mkdirSync(folder, { recursive: true });
  const source = join(prefix(), "sources.list");
  writeFileSync(source, sources_of_suite());
  const options = [
    ["Dir::Etc::sourcelist", source],
    ["Dir::Etc::sourceparts", "-"],
    ["Dir::State::Lists", lists],
    ["Dir::Cache::pkgcache", ""],
    ["Dir::Cache::srcpkgcache", ""],
    ["APT::Sandbox::User", ""],
    ["Acquire::Retries", "3"],
    ["Acquire::Languages", "none"],
  ].flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  say(`reading the package list of Debian ${kSuite} (into ${prefix()}, not into the system)`);
  run("apt-get", [...options, "-qq", "update"], {
    why: `The package list of Debian ${kSuite} could not be read: is the network up, and does the mirror carry that suite?`,
  });
  return packages.map((name, index) => {
    const file = join(folder, `${name}.deb`);
    if (!existsSync(file)) {
      say(`downloading ${name} (${index + 1} of ${packages.length})${name === "emscripten" ? ", 240 MB" : ""}`);
      const partial = join(folder, `${name}.partial`);
      mkdirSync(partial, { recursive: true });
      run("apt-get", [...options, "-q", "download", `${name}/${kSuite}`], {
        cwd: partial,
        why: `Debian's package ${name} could not be downloaded. Run the same command again: what is already there is kept.`,
      });
      const got = readdirSync(partial).find((entry) => entry.endsWith(".deb"));
      if (!got) fail(`apt-get downloaded ${name} but left no file in ${partial}.`);
      renameSync(join(partial, got), file);
      rmSync(partial, { recursive: true });
    }
    return file;
  });
}

/// The machine's own Debian mirror, with the suite's name changed.
function sources_of_suite() {
  const files = ["/etc/apt/sources.list", ...list("/etc/apt/sources.list.d")];
  const text = files
    .filter(existsSync)
    .map((file) => readFileSync(file, "utf8"))
    .join("\n");
  const mirror =
    /(https?:\/\/[^\s]*\/debian)\/?(?=\s)/.exec(text.replace(/^#.*$/gm, ""))?.[1] ?? "http://deb.debian.org/debian";
  const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
  const signed = existsSync(keyring) ? `[signed-by=${keyring}] ` : "";
  return `deb ${signed}${mirror} ${kSuite} main\n`;
}

const list = (folder) => (existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : []);

function unpack(files) {
  const root = join(prefix(), "root");
  rmSync(root, { recursive: true, force: true });
  mkdirSync(root, { recursive: true });
  for (const file of files) {
    // Documentation and Emscripten's own test suite are most of the small files; unpacking takes half the time without.
    const skip = [
      "./usr/share/doc/*",
      "./usr/share/man/*",
      "./usr/share/emscripten/tests/*",
      "./usr/share/emscripten/test/*",
    ];
    const excludes = skip.map((pattern) => `--exclude='${pattern}'`).join(" ");
    run("sh", ["-c", `dpkg-deb --fsys-tarfile '${file}' | tar -x -C '${root}' ${excludes}`], {
      why: `${file} could not be unpacked: is the disk full? Remove that file if it is damaged, and run the same command again.`,
    });
  }
}

/// One folder with nothing but the header libraries. Native and WebAssembly builds both get it by -isystem; /usr/include
/// itself must never reach emcc, which would then read glibc's headers.
function link_headers(root, headers) {
  rmSync(headers, { recursive: true, force: true });
  mkdirSync(headers, { recursive: true });
  for (const name of ["xsimd", "doctest", "protozero", "nlohmann"])
    symlinkSync(join(root, "usr", "include", name), join(headers, name));
}

function configure_emscripten(root) {
  const emscripten = join(root, "usr", "share", "emscripten");
  const modules = join(emscripten, "node_modules");
  // Emscripten's JavaScript optimiser imports acorn as an ES module; Debian keeps that in another package.
  const acorn = ["usr/share/nodejs/acorn", "usr/lib/nodejs/acorn"].map((at) => join(root, at)).find(existsSync);
  if (!acorn)
    fail(
      "Debian's node-acorn has no acorn folder where it used to be.",
      `Report this, with the output of 'ls ${root}/usr/share'.`,
    );
  if (existsSync(modules) || is_link(modules)) rmSync(modules, { recursive: true, force: true });
  mkdirSync(modules, { recursive: true });
  for (const entry of readdirSync(resolve(acorn, ".."))) symlinkSync(join(acorn, "..", entry), join(modules, entry));

  const binaryen = join(prefix(), "binaryen");
  wrap_binaryen(root, binaryen);
  const llvm = ["/usr/lib/llvm-19/bin", "/usr/bin"].find(
    (bin) => existsSync(join(bin, "wasm-ld")) && existsSync(join(bin, "clang")),
  );
  if (!llvm) fail("LLVM 19 is missing.", "Install it: apt-get install --no-install-recommends clang-19 lld-19 llvm-19");
  const config = {
    LLVM_ROOT: llvm,
    BINARYEN_ROOT: binaryen,
    NODE_JS: process.execPath,
  };
  const lines = Object.entries(config).map(([key, value]) => `${key} = '${value}'`);
  const cache = join(emscripten, "cache");
  lines.push(`CACHE = '${cache}'`, "FROZEN_CACHE = True", "LLVM_ADD_VERSION = ''", "CLANG_ADD_VERSION = ''");
  writeFileSync(join(prefix(), "emscripten.py"), lines.join("\n") + "\n");
  return emscripten;
}

const is_link = (path) => {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
};

/// Debian 12's binaryen is too old for this Emscripten. Debian 13's runs here through Debian 13's own dynamic loader.
function wrap_binaryen(root, folder) {
  const loader = spawnSync("sh", ["-c", `find '${root}' -name 'ld-linux*.so.*' | head -n 1`], {
    encoding: "utf8",
  }).stdout.trim();
  const libc = spawnSync("sh", ["-c", `find '${root}' -name 'libc.so.6' | head -n 1`], {
    encoding: "utf8",
  }).stdout.trim();
  if (!loader || !libc)
    fail(
      "Debian 13's libc6 has no dynamic loader where it used to be.",
      "Report this together with the output of 'uname -m'.",
    );
  const libraries = [resolve(libc, ".."), join(root, "usr", "lib", "binaryen")].join(":");
  mkdirSync(join(folder, "bin"), { recursive: true });
  const tools = readdirSync(join(root, "usr", "bin")).filter((name) => name.startsWith("wasm"));
  for (const name of tools) {
    const tool = join(root, "usr", "bin", name);
    writeFileSync(
      join(folder, "bin", name),
      `#!/bin/sh\nexec '${loader}' --library-path '${libraries}' '${tool}' "$@"\n`,
      { mode: 0o755 },
    );
  }
}
