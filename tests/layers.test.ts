// The architecture as a test: includes and imports only point down, rooms on one floor do not know each other.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const root = resolve(fileURLToPath(new URL("..", import.meta.url)));

/** Lowest first. A room may use every room of a lower floor. */
const kFloors = [
  ["base"],
  ["kernels"],
  ["tensor", "codec"],
  ["model", "data"],
  ["formats", "quantize", "prune", "rewrite", "train", "analyze"],
  ["pipeline"],
  ["search"],
  ["wasm"],
];

const floorOf = (room: string) => kFloors.findIndex((rooms) => rooms.includes(room));

/** Instruction sets are named by one file alone. */
const kSimd = "core/kernels/simd.hpp";
const kSimdHeaders = /^(xsimd\/|wasm_simd128\.h|[a-z]*mmintrin\.h|x86intrin\.h|arm_neon\.h)/;

/** The one file of the page that runs the engine. */
const kActions = "web/src/actions.ts";

interface Edge {
  file: string;
  line: number;
  /** As written: "core/base/error.hpp", "./api". */
  target: string;
  /** `import type` and `export type` leave nothing at run time. */
  typeOnly: boolean;
}

function includesOf(file: string, text: string): Edge[] {
  return text.split("\n").flatMap((content, index) => {
    const target = /^\s*#\s*include\s*[<"]([^>"]+)[>"]/.exec(content)?.[1];
    return target === undefined ? [] : [{ file, line: index + 1, target, typeOnly: false }];
  });
}

function importsOf(file: string, text: string): Edge[] {
  // Statements start a line; what stands in a string or a comment does not.
  const pattern =
    /^\s*(?:import|export)\s+(type\s+)?(?:[\w*${}\s,]*?\s*from\s*)?["']([^"']+)["']|\bimport\s*\(\s*["']([^"']+)["']\s*\)/gm;
  return [...text.matchAll(pattern)].map((match) => ({
    file,
    line: text.slice(0, match.index).split("\n").length,
    target: (match[2] ?? match[3])!,
    // `typeof import("x")` in a type is read as a run-time import: stricter than need be, and never wrong the other way.
    typeOnly: match[1] !== undefined || /^import\s*\{(\s*type\s+\w+\s*,?)+\s*\}/.test(match[0]),
  }));
}

/** What is wrong with an include, or undefined. */
function wrongInclude({ file, target }: Edge): string | undefined {
  const [top, room = ""] = file.split("/");
  if (/^emscripten/.test(target) && top === "core") return "core/ knows nothing of Emscripten";
  if (kSimdHeaders.test(target) && top !== "tests" && file !== kSimd) return `only ${kSimd} names an instruction set`;
  if (top === "tests") return undefined;
  if (target.startsWith("../") || target.startsWith("./")) return "includes start at the top of the project";
  const [targetTop, targetRoom = ""] = target.split("/");
  if (targetTop === "wasm" || targetTop === "web" || targetTop === "tests") {
    return top === targetTop ? undefined : `${top}/ lies below ${targetTop}/`;
  }
  if (targetTop !== "core") return undefined; // a library
  if (floorOf(targetRoom) < 0) return `core/${targetRoom} is no room of the architecture`;
  if (top === "wasm") return undefined;
  if (floorOf(room) < 0) return `core/${room} is no room of the architecture`;
  if (room === targetRoom || floorOf(targetRoom) < floorOf(room)) return undefined;
  const higher = floorOf(targetRoom) > floorOf(room);
  return higher ? `${room} lies below ${targetRoom}` : `${room} and ${targetRoom} share a floor`;
}

/** What is wrong with an import, or undefined. */
function wrongImport({ file, target, typeOnly }: Edge): string | undefined {
  const [top] = file.split("/");
  const path = target.startsWith(".") ? relative(root, resolve(root, dirname(file), target)) : target;
  const package_ = /^nibble-nn(\/|$)/.test(target) || /^wasm\//.test(path);
  // The example is what a user of the package writes.
  if (file.startsWith("wasm/example/")) return undefined;
  if (top === "wasm") {
    if (package_ && target.startsWith("nibble-nn")) return "the package imports its own files by their paths";
    return /^(web|tests)\//.test(path) ? `wasm/ lies below ${path.split("/")[0]}/` : undefined;
  }
  if (top !== "web") return undefined;
  if (/^tests\//.test(path)) return "the page does not know its tests";
  if (/^(wasm|core)\//.test(path)) return "the page imports the package by its name";
  if (package_ && !typeOnly && file !== kActions) return `only ${kActions} runs the engine`;
  return undefined;
}

function filesBelow(folder: string, ending: RegExp): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (["node_modules", "dist", "build"].includes(entry.name)) return [];
    if (entry.isDirectory()) return filesBelow(path, ending);
    return ending.test(entry.name) ? [path] : [];
  });
}

const read = (file: string) => readFileSync(join(root, file), "utf8");
const cppFiles = ["core", "wasm", "tests"].flatMap((folder) => filesBelow(folder, /\.(hpp|cpp|h|cc)$/));
const tsFiles = ["wasm", "web"]
  .flatMap((folder) => filesBelow(folder, /\.(ts|tsx|mts|js|mjs)$/))
  .filter((file) => !/\.(test|spec)\.tsx?$/.test(file));

function complaints(edges: Edge[], judge: (edge: Edge) => string | undefined): string[] {
  return edges.flatMap((edge) => {
    const wrong = judge(edge);
    return wrong ? [`${edge.file}:${edge.line} takes "${edge.target}": ${wrong}`] : [];
  });
}

test("every include points down", () => {
  const edges = cppFiles.flatMap((file) => includesOf(file, read(file)));
  expect(edges.length).toBeGreaterThan(0);
  expect(complaints(edges, wrongInclude)).toEqual([]);
});

test("every import points down", () => {
  const edges = tsFiles.flatMap((file) => importsOf(file, read(file)));
  expect(edges.length).toBeGreaterThan(0);
  expect(complaints(edges, wrongImport)).toEqual([]);
});

test("every folder of core is a room with a floor", () => {
  const rooms = readdirSync(join(root, "core"), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(rooms.map((entry) => entry.name).filter((name) => floorOf(name) < 0)).toEqual([]);
});

test("the libraries that CMake links are those that the includes use", () => {
  const declared = [
    ...read("core/CMakeLists.txt").matchAll(/nibble_room\((\w+)\s+SOURCES[^)]*?(?:USES\s+([\w\s]+))?\)/g),
  ];
  expect(declared.length).toBeGreaterThan(0);
  const wrong = declared.flatMap(([, room, uses = ""]) =>
    uses
      .split(/\s+/)
      .filter((used) => used && floorOf(used) >= floorOf(room!))
      .map((used) => `${room} links ${used}`),
  );
  expect(wrong).toEqual([]);
});

describe("the judges", () => {
  const include = (file: string, target: string) => wrongInclude({ file, line: 1, target, typeOnly: false });
  const run = (file: string, text: string) => importsOf(file, text).map(wrongImport);

  test("refuse arrows that point up or across", () => {
    expect(include("core/tensor/tensor.hpp", "core/model/graph.hpp")).toBe("tensor lies below model");
    expect(include("core/prune/prune.cpp", "core/quantize/quantize.hpp")).toBe("prune and quantize share a floor");
    expect(include("core/base/error.cpp", "wasm/bindings.hpp")).toBe("core/ lies below wasm/");
    expect(include("core/base/error.cpp", "core/nowhere/x.hpp")).toContain("no room");
    expect(include("core/base/error.cpp", "emscripten/bind.h")).toContain("Emscripten");
    expect(include("core/kernels/reduce.cpp", "xsimd/xsimd.hpp")).toContain("instruction set");
    expect(include("core/kernels/reduce.cpp", "../base/error.hpp")).toContain("top of the project");
  });

  test("let arrows pass that point down", () => {
    expect(include("core/tensor/tensor.hpp", "core/kernels/kernels.hpp")).toBeUndefined();
    expect(include("core/tensor/tensor.cpp", "core/tensor/tensor.hpp")).toBeUndefined();
    expect(include("core/kernels/simd.hpp", "xsimd/xsimd.hpp")).toBeUndefined();
    expect(include("wasm/bindings.cpp", "emscripten/bind.h")).toBeUndefined();
    expect(include("core/base/error.cpp", "string")).toBeUndefined();
  });

  test("let only the actions run the engine, and everybody use its types", () => {
    expect(run("web/src/state.ts", 'import { load } from "nibble-nn";')[0]).toContain(kActions);
    expect(run("web/src/state.ts", 'const x = await import("nibble-nn/inline");')[0]).toContain(kActions);
    expect(run("web/src/state.ts", 'import type { Model } from "nibble-nn";')).toEqual([undefined]);
    expect(run("web/src/state.ts", 'import { type Model, type Recipe } from "nibble-nn";')).toEqual([undefined]);
    expect(run("web/src/actions.ts", 'import { load } from "nibble-nn";')).toEqual([undefined]);
    expect(run("web/src/views/top.tsx", 'import type { Model } from "../../../wasm/src/api";')[0]).toContain(
      "by its name",
    );
    expect(run("wasm/src/client.ts", 'import { format } from "../../web/src/format";')[0]).toContain("below web/");
    expect(run("web/src/main.tsx", 'import {\n  one,\n  two,\n} from "../../tests/x";')[0]).toContain("tests");
  });
});
