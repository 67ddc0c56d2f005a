// Puts a host behind comlink, with replies moved across threads instead of copied.
import { expose, transfer } from "comlink";
import type { Endpoint } from "comlink";
import { createHost, transferables } from "./host";
import type { ReadNow } from "./host";
import type { Reply, WorkerMessage } from "./wire";

export function serve(
  endpoint: Endpoint | undefined,
  post: (message: WorkerMessage) => void,
  readNow: ReadNow | undefined,
): void {
  const host = createHost({ onProgress: (progress) => post({ progress }), stopped: () => false, readNow });
  const moving = Object.entries(host).map(([name, method]: [string, (...args: never[]) => Promise<Reply<unknown>>]) => [
    name,
    async (...args: never[]) => {
      const reply = await method(...args);
      return transfer(reply, transferables(reply));
    },
  ]);
  expose(Object.fromEntries(moving), endpoint);
  post({ ready: true });
}
