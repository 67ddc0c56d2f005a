// The script of a Node worker thread.
import nodeEndpoint from "comlink/dist/esm/node-adapter.mjs";
import { parentPort } from "node:worker_threads";
import { readNow } from "./disk-node";
import { serve } from "./serve";

if (!parentPort) throw new Error("this file is the script of a worker thread and does nothing by itself");
const port = parentPort;
serve(nodeEndpoint(port), (message) => port.postMessage(message), readNow);
