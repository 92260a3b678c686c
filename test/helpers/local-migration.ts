/** Migrations set up in this process, so that a test can ask the roles at any moment. */
import { mkdirSync } from "node:fs";
import { type Context, newId, planMigration, setUp } from "../../src/migration/mod.ts";
import { type Host, localHost } from "../../src/role/mod.ts";
import { makeDisk } from "./disk.ts";
import { Dlsm } from "./dlsm.ts";

export interface Local {
  readonly dlsm: Dlsm;
  readonly host: Host;
  readonly context: Context;
  readonly folders: { readonly state: string; readonly run: string };
  /** Plans and attaches so many disks of 16 MiB, `ID-1` to `ID-1.d` and so on in the test's folder. */
  begin(count: number, activation?: "explicit" | "first-write"): ReturnType<typeof setUp>;
  /** As `context`, but `before` and `after` are told of each request. */
  watched(before: Watch, after?: Watch): Context;
}

type Watch = (name: string, id: string | undefined) => Promise<void> | void;

/** What the body leaves is killed. */
export async function locally(body: (local: Local) => Promise<void>): Promise<void> {
  const dlsm = new Dlsm();
  const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = dlsm.environment;
  for (const folder of [state, run]) mkdirSync(folder, { mode: 0o700 });
  const host = await localHost({ state, run });
  const reporter = { message() {}, progress() {}, result() {} } as unknown as Context["reporter"];
  const contextOf = (each: Host): Context => ({
    source: each,
    destination: each,
    reporter,
    signal: new AbortController().signal,
  });
  const context = contextOf(host);
  const begin: Local["begin"] = async (count, activation = "explicit") => {
    const id = newId();
    const disks = Array.from({ length: count }, (_, at) => {
      const source = dlsm.path(`${id}-${at + 1}`);
      makeDisk(source, 16, [at]);
      return { source, destination: `${source}.d` };
    });
    await planMigration(context, { ...defaults, id, disks, activation });
    return await setUp(context, id);
  };
  const watched: Local["watched"] = (before, after = () => {}) => {
    const ask = async (name: string, request: { readonly id?: string }, options: object) => {
      await before(name, request.id);
      const reply = await host.ask(name as never, request as never, options);
      await after(name, request.id);
      return reply;
    };
    return contextOf({ ...host, ask } as unknown as Host);
  };
  try {
    await body({ dlsm, host, context, folders: { state, run }, begin, watched });
  } finally {
    await host.close();
    await dlsm.close();
  }
}

const defaults = {
  handoff: "manual",
  isByCommand: false,
  blockBytes: 4096,
  bytesPerSecond: null,
  sourceTimeoutMs: null,
  verify: false,
  holdCutover: true,
  keepSource: false,
  force: false,
  portal: null,
  tunnel: false,
} as const;
