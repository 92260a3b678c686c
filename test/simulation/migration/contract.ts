/** What roles are asked one after the other, and what they answer, told without what is different each time. */
import { planOf } from "../../role/plan.ts";

/** A host's roles with what is below them, real or simulated. */
export interface Ground {
  ask(name: string, request: unknown): Promise<unknown>;
  /** `kill -9`. */
  kill(pid: number): Promise<void>;
  pause(): Promise<void>;
  readonly source: string;
  readonly destination: string;
  readonly sizeBytes: number;
}

interface Entry {
  readonly state: string;
  readonly isActivated: boolean;
  readonly isReleased: boolean;
  readonly stored: { readonly residentBytes: number } | null;
  readonly problem: string | null;
  readonly engine: {
    readonly state: string;
    readonly pid: number;
    readonly residentBytes: number;
    readonly isConnected: boolean;
    readonly isSourceDetached: boolean;
  } | null;
}

const id = "abcd1234";

/** A migration through all of its messages, with engine and tgtd killed on the way. */
export async function tellOf(ground: Ground): Promise<string[]> {
  const lines: string[] = [];
  const ask = async <T>(name: string, request: object = {}): Promise<T | undefined> => {
    try {
      const answer = await ground.ask(name, { id, ...request });
      lines.push(`${name}: answered`);
      return answer as T;
    } catch (error) {
      lines.push(`${name}: ${(error as Error).name}`);
      return undefined;
    }
  };
  const entry = async () => (await ground.ask("destination.list", { id }) as Entry[])[0];
  const source = async () =>
    (await ground.ask("source.list", { id }) as {
      tgtdPid: number | null;
      fence: object | null;
      state: string;
    }[])[0];
  const look = async (what: string) => {
    const [here, there] = [await entry(), await source()];
    const engine = here?.engine &&
      { state: here.engine.state, isSourceDetached: here.engine.isSourceDetached };
    const facts = here && {
      state: here.state,
      isActivated: here.isActivated,
      isReleased: here.isReleased,
      hasProblem: here.problem !== null,
      isStored: here.stored !== null,
      engine,
    };
    const exported = there && {
      state: there.state,
      isServed: there.tgtdPid !== null,
      isFenced: there.fence !== null,
    };
    lines.push(`${what}: ${JSON.stringify({ ...facts })} ${JSON.stringify({ ...exported })}`);
  };
  const until = async (isSo: (found: Entry | undefined) => boolean) => {
    while (!isSo(await entry())) await ground.pause();
  };
  const exporting = {
    path: ground.source,
    portal: { address: "127.0.0.1", port: 0 },
    allow: "127.0.0.1",
    tunnel: null,
    destination: { host: "here", path: ground.destination },
  };
  const setUp = async () => {
    await ask("destination.plan", planOf(ground.destination, { sizeBytes: ground.sizeBytes }));
    await look("planned");
    const ticket = await ask("source.export", exporting);
    await ask("source.export", exporting);
    await ask("destination.activate");
    await ask("destination.attach", { export: ticket });
    await look("attached");
  };

  await setUp();
  await ask("destination.detachSource");
  await ask("destination.finish");
  await ask("destination.abort", { force: false });
  await ask("destination.abort", { force: false });
  await ask("source.release", { force: true });
  await look("taken back");

  await setUp();
  lines.push(JSON.stringify((await ask<{ stood: boolean }>("source.fence", { force: false }))?.stood));
  lines.push(JSON.stringify((await ask<{ stood: boolean }>("source.fence", { force: false }))?.stood));
  await ground.kill((await entry())!.engine!.pid);
  await look("engine killed before the hand-off");
  await ask("destination.activate");
  await ask("destination.ensure", { export: null, force: false });
  await look("engine again");
  await ground.kill((await source())!.tgtdPid!);
  await look("tgtd killed");
  const again = await ask("source.ensure", { force: false });
  await ask("destination.ensure", { export: again, force: false });
  await until((found) => found!.engine!.isConnected);
  await look("tgtd again");
  await ask("destination.activate");
  await ask("destination.activate");
  await ask("destination.abort", { force: false });
  await until((found) => found?.engine?.state === "synced");
  await look("synced");
  await ground.kill((await entry())!.engine!.pid);
  await look("engine killed when all was here");
  await ask("destination.finish");
  await ask("destination.ensure", { export: null, force: false });
  await until((found) => found?.engine?.state === "synced");
  await ask("destination.detachSource");
  await look("logged out");
  await ask("source.release", { force: true });
  await ask("source.release", { force: true });
  await ask("destination.setReleased");
  await look("released");
  await ground.kill((await entry())!.engine!.pid);
  await ask("destination.ensure", { export: null, force: false });
  await look("engine again, without a source");
  lines.push(JSON.stringify((await ask<{ isDone: boolean }>("destination.finish"))?.isDone));
  await ask("destination.finish");
  await look("done");
  return lines;
}
