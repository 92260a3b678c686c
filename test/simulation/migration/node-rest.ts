/** What the code under simulation gets for the clock, for what its process is, and for chance. */
import { createHash } from "node:crypto";
import { current, forever, Killed, world } from "./world.ts";

export { createHash };

// --- node:timers/promises ---

export function setTimeout<T>(
  delayMs: number,
  value?: T,
  { signal }: { readonly signal?: AbortSignal; readonly ref?: boolean } = {},
): Promise<T> {
  const process = current();
  if (process.isDead) return forever;
  return new Promise((resolve, reject) => {
    const refuse = () => {
      const error = new Error("The operation was aborted");
      error.name = "AbortError";
      reject(error);
    };
    if (signal?.aborted) return refuse();
    let isOver = false;
    signal?.addEventListener("abort", () => {
      if (isOver || process.isDead) return;
      isOver = true;
      refuse();
    }, { once: true });
    world().after(delayMs, () => {
      if (isOver || process.isDead) return;
      isOver = true;
      resolve(value as T);
    });
  });
}

// --- the clock ---

export const performance = { now: () => world().nowMs };

/** The simulation begins here, whenever it runs. */
const epochMs = Date.UTC(2026, 0, 1);

const RealDate = globalThis.Date;
class SimulatedDate extends RealDate {
  constructor(...given: [] | [number | string]) {
    super(given.length === 0 ? SimulatedDate.now() : given[0]);
  }
  static override now(): number {
    return epochMs + Math.round(world().nowMs);
  }
}
export { SimulatedDate as Date };

// --- node:process, and the global of that name ---

export const process = {
  get pid() {
    return current().pid;
  },
  get env() {
    return current().environment;
  },
  argv: ["node", "dlsm"],
  execPath: "/usr/bin/node",
  execArgv: [],
  platform: "linux",
  arch: "x64",
  versions: { node: "26.0.0" },
  getuid: () => 0,
  stdin: { isTTY: false },
  stdout: output(),
  stderr: output(),
  exitCode: 0,
  on: (name: string, listener: () => void) => {
    const { signals } = current();
    signals.set(name, [...signals.get(name) ?? [], listener]);
  },
  removeListener: (name: string, listener: () => void) => {
    const { signals } = current();
    signals.set(name, (signals.get(name) ?? []).filter((each) => each !== listener));
  },
  exit: (): never => {
    world().end(current(), "exits");
    throw new Killed();
  },
  nextTick: (work: () => void) => queueMicrotask(work),
};
export default process;

function output() {
  return {
    isTTY: false,
    write: (text: string) => {
      if (!current().isDead) current().log(text);
    },
    once: () => {},
    on: () => {},
  };
}

// --- node:os ---

export const hostname = () => current().host.name;
export const homedir = () => "/root";
export const tmpdir = () => "/tmp";
export const release = () => "6.1.0";
export const userInfo = () => ({ username: "root" });

// --- node:crypto ---

export function randomBytes(length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => world().below(256)));
}

export function randomInt(below: number): number {
  return world().below(below);
}

// --- src/role/network.ts ---

export function findRoute(to: string) {
  const { address } = current().host;
  return Promise.resolve({ sourceAddress: to.startsWith("127.") ? to : address, problem: null });
}

export async function probePortal(address: string, port: number) {
  const { host } = current();
  await world().sleep(2);
  const there = address.startsWith("127.") ? host : world().named(address);
  const link = there === undefined ? "cut" : there === host ? "up" : world().link(host, there);
  const isListening = there !== undefined && link === "up" &&
    [...there.targets.values()].some((target) => target.port === port && !target.process.isDead);
  return { problem: isListening ? null : `nothing listens at ${address} port ${port}` };
}

// --- src/role/survey/survey.ts: not simulated ---

export const survey = () => Promise.resolve([]);
export const clean = () => Promise.resolve([]);
