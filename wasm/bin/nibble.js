#!/usr/bin/env node
// The command's front: all of it is in the built package.
import { existsSync } from "node:fs";

const cli = new URL("../dist/cli.js", import.meta.url);
if (existsSync(cli)) {
  await import(cli.href);
} else {
  console.error("nibble: the package is not built yet: run 'npm run build' at the top of the project.");
  process.exitCode = 1;
}
