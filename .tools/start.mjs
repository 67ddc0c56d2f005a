// `npm start`: installs what is missing, builds what is out of date, serves the page and says where.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { build, kDefault } from "./build.mjs";
import { serve } from "./serve.mjs";
import { setup } from "./setup.mjs";
import { root, say, which } from "./shell.mjs";

setup();
for (const target of kDefault) await build(target);
const { url } = await serve(join(root, "web", "dist"), Number(process.env.PORT) || undefined);
say(`the page is at ${url} (Ctrl-C ends it)`);

const opener = process.platform === "darwin" ? "open" : "xdg-open";
const screen = process.platform === "darwin" || process.env.DISPLAY || process.env.WAYLAND_DISPLAY;
if (process.stdout.isTTY && !process.env.CI && screen && !process.env.SSH_CONNECTION && which(opener)) {
  spawn(opener, [url], { stdio: "ignore", detached: true })
    .on("error", () => {}) // the address is on the screen
    .unref();
}
