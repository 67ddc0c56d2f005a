// Runs work one at a time and only for the newest request: a slider asks far more often than work can be done, and
// whatever lies between the running request and the newest is stale already.

export interface Latest {
  /** Asks for a run. At once if none is going on, else after it; any number of asks meanwhile is one run. Resolves when
   *  a run that started after this call has ended. */
  ask(): Promise<void>;
  /** Resolves when no run is going on. */
  idle(): Promise<void>;
}

/** `work` reads its input itself when it starts, so it always sees the newest; it must not throw. */
export function latest(work: () => Promise<void>): Latest {
  let running: Promise<void> | null = null;
  let next: Promise<void> | null = null;
  const start = (): Promise<void> => {
    const run = work().finally(() => {
      if (running === run) running = null;
    });
    running = run;
    return run;
  };
  return {
    ask() {
      if (!running) return start();
      next ??= running.then(() => {
        next = null;
        return start();
      });
      return next;
    },
    async idle() {
      while (running) await running;
    },
  };
}
