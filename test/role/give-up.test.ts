/** Giving a migration up while somebody hands it over: it is one of the two, and for all of its disks. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { execa } from "execa";
import { abort, activate, resume } from "../../src/migration/mod.ts";
import type { DestinationEntry } from "../../src/role/mod.ts";
import { type Local, locally } from "../helpers/local-migration.ts";
import { needing } from "../helpers/needs.ts";
import { NbdClient } from "../integration/nbd-client.ts";

const test = suite("giving up");
const withTgt = needing(test, ["tgtd"]);

/** Undefined if it went well. */
const failureOf = (work: Promise<unknown>): Promise<Error | undefined> =>
  work.then(() => undefined, (error) => error);

const entriesOf = ({ host }: Local, id: string): Promise<DestinationEntry[]> =>
  host.ask("destination.list", { id });

async function startFirstWriter(socket: string, file: string): Promise<{ acknowledged(): Promise<boolean> }> {
  const path = join(import.meta.dirname!, "first-writer.ts");
  const given = process.versions.deno === undefined
    ? ["--disable-warning=ExperimentalWarning"]
    : ["run", "-A"];
  const child = execa(process.execPath, [...given, path, socket, file], { stdin: "ignore" });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once("data", () => resolve());
    child.catch(reject);
  });
  return { acknowledged: async () => (await child).stdout.endsWith("\nacknowledged") };
}

withTgt(
  "what was acknowledged is not thrown away: a first write while the abort begins",
  () =>
    locally(async (local) => {
      for (let round = 0; round < 3; round++) {
        const { id, disks: [{ destination }] } = await local.begin(1, "first-write");
        const journal = join(local.folders.state, "destination", id, "journal");
        const writer = await startFirstWriter(destination!.nbdSocket, journal);
        const failure = await failureOf(abort(local.context, id, false));
        assert.is(await writer.acknowledged(), failure !== undefined, `${failure}`);
        if (failure !== undefined) await abort(local.context, id, true);
      }
      await local.dlsm.nothingLeft();
    }),
);

withTgt("a first write and an abort at the same time: one of them", () =>
  locally(async (local) => {
    for (let round = 0; round < 6; round++) {
      const { id, disks: [{ destination }] } = await local.begin(1, "first-write");
      const client = await NbdClient.connect(destination!.nbdSocket);
      const aborting = failureOf(abort(local.context, id, false));
      for (let turn = 0; turn < round; turn++) await local.host.ask("destination.ended", { id });
      const written = await failureOf(client.write(0, Buffer.alloc(4096, 9)));
      const failure = await aborting;
      assert.is(written === undefined, failure !== undefined, `${failure}`);
      if (failure === undefined) continue;
      assert.match(failure.message, /hand-off .* has happened/);
      assert.is((await client.read(0, 1))[0], 9, "the engine goes on");
      client.close();
      await abort(local.context, id, true);
    }
    await local.dlsm.nothingLeft();
  }));

withTgt(
  "of several disks one was written to first: none is given up, and those that were ended come back",
  () =>
    locally(async (local) => {
      // The write has to come between the end of the first disk's engine and the second's: it may be late.
      for (let round = 0; round < 10; round++) {
        const { id, disks } = await local.begin(2, "first-write");
        const [first, second] = disks.map(({ destination }) => destination!.nbdSocket);
        const writer = await startFirstWriter(second, first);
        const failure = await failureOf(abort(local.context, id, false));
        assert.is(await writer.acknowledged(), failure !== undefined, `${failure}`);
        if (failure === undefined) continue;
        assert.match(failure.message, new RegExp(`hand-off of ${id}-2 has happened`));
        const entries = await entriesOf(local, id);
        assert.equal(entries.map(({ state, engine, isActivated }) => [state, engine !== null, isActivated]), [
          ["attached", true, false],
          ["attached", true, true],
        ]);
        await activate(local.context, id, false);
        await abort(local.context, id, true);
        await local.dlsm.nothingLeft();
        return;
      }
      assert.unreachable("no write came in time");
    }),
);

withTgt(
  "abort and activate at once with several disks: whoever comes first wins all of them",
  () =>
    locally(async (local) => {
      const { context } = local;
      // The first disk is being given up when the hand-off begins, and handed over when the abort begins.
      const given = await local.begin(2);
      let handingOver: Promise<Error | undefined> | undefined;
      const during = local.watched(() => {}, async (name) => {
        if (name !== "destination.abort" || handingOver !== undefined) return;
        handingOver = failureOf(activateBoth(local, given.id));
        await handingOver;
      });
      assert.is(await failureOf(abort(during, given.id, false)), undefined);
      assert.match((await handingOver)!.message, /abort of .* was cut short|no migration/);
      assert.equal(await entriesOf(local, given.id), []);
      await local.dlsm.nothingLeft();

      const kept = await local.begin(2);
      let aborting: Promise<Error | undefined> | undefined;
      const handOver = local.watched(() => {}, async (name) => {
        if (name !== "destination.activate" || aborting !== undefined) return;
        aborting = failureOf(abort(context, kept.id, false));
        await aborting;
      });
      assert.is(await failureOf(activate(handOver, kept.id, false)), undefined);
      assert.match((await aborting)!.message, /hand-off of .*-1 has happened/);
      assert.equal((await entriesOf(local, kept.id)).map(({ engine }) => engine?.state === "attached"), [
        false,
        false,
      ]);
      await abort(context, kept.id, true);
      await local.dlsm.nothingLeft();
    }),
);

/** Each volume for itself, as a hand-off does that has looked before the abort. */
async function activateBoth({ host }: Local, id: string): Promise<void> {
  for (const disk of [`${id}-1`, `${id}-2`]) await host.ask("destination.activate", { id: disk });
}

withTgt(
  "an abort that was cut short after its decision: nothing comes up again, and abort finishes it",
  () =>
    locally(async (local) => {
      for (const isForced of [false, true]) {
        const { id } = await local.begin(2);
        if (isForced) await activate(local.context, id, false);
        // The controller is killed when the second disk has been taken away.
        await local.host.ask("destination.abort", { id: `${id}-2`, force: isForced });
        const [left] = await entriesOf(local, id);
        assert.equal([left.id, left.state], [`${id}-1`, "aborting"]);
        assert.instance(await failureOf(resume(local.context, id, false)), Error);
        const asked = failureOf(local.host.ask("destination.activate", { id: `${id}-1` }));
        assert.match((await asked)!.message, /abort of .* was cut short/);
        await abort(local.context, id, false);
        assert.not.ok(existsSync(local.dlsm.path(`${id}-1.d`)));
      }
      await local.dlsm.nothingLeft();
    }),
);

withTgt("an export that comes late is taken away too", () =>
  locally(async (local) => {
    const { id, disks: [{ source }] } = await local.begin(1);
    await local.host.ask("source.release", { id, force: true });
    const network = { portal: { address: "127.0.0.1", port: 0 }, allow: "127.0.0.1", tunnel: null };
    const late = local.watched(async (name) => {
      if (name !== "destination.abort") return;
      await local.host.ask("source.export", { id, path: source!.source.path, ...network, destination: null });
    });
    await abort(late, id, false);
    await local.dlsm.nothingLeft();
  }));

test.run();
