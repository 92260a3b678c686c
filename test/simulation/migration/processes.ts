/** What the code under simulation gets for starting programs, and for unix sockets. */
import { engineMain } from "./engine-model.ts";
import { FileNode } from "./file-system.ts";
import { current, type Process, type Spawn, world } from "./world.ts";

interface Options {
  readonly stdio?: readonly unknown[];
  readonly env?: Record<string, string>;
  readonly detached?: boolean;
}

interface Ended {
  readonly failed: boolean;
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly shortMessage: string;
}

/** The programs that dlsm starts: itself, chattr and lsattr, and the user's hand-off command. */
export function execa(program: string, args: readonly string[], options: Options = {}) {
  const own = args.findIndex((word) => word === "engine" || word === "drive");
  if (options.detached === true && own >= 0) return launched(args.slice(own), options);
  return run(program, args);
}

function launched(args: readonly string[], { stdio, env = {} }: Options) {
  const { host } = current();
  const log = typeof stdio?.[1] === "number" ? host.files.handle(stdio[1]).node : undefined;
  const how: Spawn = {
    kind: args[0]!,
    args,
    environment: env,
    log: (text) => {
      world().say(`  ${args[0]} says: ${text.trim().slice(0, 300)}`);
      if (log instanceof FileNode) host.files.write(log, new TextEncoder().encode(text), log.data.length);
    },
  };
  const main = args[0] === "engine"
    ? () => engineMain(args)
    : () => world().code.drive.run({ args: { id: args[1]! }, rawArgs: [] });
  const process = world().act(`start ${args[0]}`, () => world().spawn(host, how, main));
  return { pid: process.pid, nodeChildProcess: { unref: () => {} } };
}

async function run(program: string, args: readonly string[]): Promise<Ended> {
  const name = program.split("/").at(-1);
  const { files } = current().host;
  await world().sleep(3);
  const path = args.at(-1)!;
  if (name === "lsattr") return ended(`${files.file(path).isImmutable ? "----i---" : "--------"} ${path}\n`);
  if (name === "chattr") {
    world().act(`chattr ${args[0]} ${path}`, () => {
      files.file(path).isImmutable = args[0] === "+i";
    });
    return ended("");
  }
  if (name === "sh") {
    world().act("the user's command", () => world().onCommand());
    return ended("");
  }
  throw new Error(`${program} is not simulated`);
}

function ended(stdout: string): Ended {
  return { failed: false, exitCode: 0, stdout, stderr: "", shortMessage: "" };
}

export class ExecaError extends Error {}

// --- src/rpc/unix.ts ---

export async function connectUnix(path: string) {
  const { host } = current();
  const { code } = world();
  await world().sleep(1);
  const engine = host.listeners.get(path);
  if (engine === undefined) throw new code.NotListeningError(`nobody listens on ${path}`);
  const closed = () => new code.RpcClosedError("the connection was closed");
  const call = async (method: string, params: unknown): Promise<unknown> => {
    const caller = current();
    world().moment(`asks the engine ${method}`);
    const gone = whenEnded(engine.process);
    await world().sleep(1);
    if (engine.process.isDead) throw closed();
    let answer: unknown;
    try {
      answer = engine.handle(method, params);
    } catch (error) {
      if (engine.process.isDead) throw closed();
      throw error;
    }
    await Promise.race([world().inside(caller, () => world().sleep(1)), gone]);
    if (engine.process.isDead) throw closed();
    world().moment(`has asked the engine ${method}`);
    return structuredClone(answer);
  };
  return { call, close: () => {} };
}

function whenEnded(process: Process): Promise<void> {
  if (process.isDead) return Promise.resolve();
  return new Promise((resolve) => process.ends.push(resolve));
}

export const listenUnix = (): never => {
  throw new Error("the engine's model listens by itself");
};
