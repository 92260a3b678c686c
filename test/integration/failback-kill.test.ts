/**
 * The command that goes back is killed between any two of its steps, and so is the one that stays after all; then
 * either of them is given again. The disk is right wherever it is then used, and nothing is left.
 */
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { DlsmError } from "../../src/lib/errors.ts";
import {
  type Context,
  Driver,
  failback,
  handOffNew,
  observe,
  resume,
  setUp,
} from "../../src/migration/mod.ts";
import { settle } from "../../src/migration/steps.ts";
import { createReporter } from "../../src/report/mod.ts";
import { destinationJournal } from "../../src/role/destination-journal.ts";
import { type Host, localHost, type RequestName } from "../../src/role/mod.ts";
import { MiB } from "../helpers/disk.ts";
import { kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf, until } from "../helpers/processes.ts";
import { WayBack } from "./way-back.ts";

const test = suite("failback: killed");
const withTgt = needing(test, ["tgtd"]);

/**
 * The sync gets nowhere: the volume stays one of which the source has a part, until somebody reads all of it;
 * then it is still there.
 */
const slow = ["--bwlimit", "16KiB/s", "--keep-source"];
const silent = { write: () => true, isTTY: false } as never;
const wishes = { force: false, portal: null, tunnel: false, begin: () => {} };

class Killed extends Error {}

interface Point {
  readonly name: RequestName;
  readonly when: "before" | "after";
}

function contextOf(host: Host): Context {
  const reporter = createReporter(false, { stdout: silent, stderr: silent, environment: {} });
  return { source: host, destination: host, reporter, signal: new AbortController().signal };
}

/** As a command does it: with roles of its own in this process. */
async function withHost<T>(way: WayBack, work: (context: Context) => Promise<T>): Promise<T> {
  const { DLSM_STATE_DIR: state, DLSM_RUN_DIR: run } = way.dlsm.environment;
  const host = await localHost({ state: state!, run: run! });
  try {
    return await work(contextOf(host));
  } finally {
    await host.close();
  }
}

/** The command ends before or after a request; nothing of it is said or done any more. */
async function killedAt(
  way: WayBack,
  { name, when }: Point,
  command: (context: Context) => Promise<unknown>,
): Promise<void> {
  await withHost(way, async (context) => {
    let isDead = false;
    const dying: Host = {
      ...context.source,
      async ask(asked, request, options) {
        if (isDead) throw new Killed();
        if (asked !== name) return await context.source.ask(asked, request, options);
        isDead = true;
        if (when === "after") await context.source.ask(asked, request, options);
        throw new Killed();
      },
    };
    await command({ ...context, source: dying, destination: dying }).then(
      () => assert.unreachable(`${name} was never asked`),
      () => assert.ok(isDead, `${name} was asked`),
    );
  });
}

/** Goes back, if it has not (as `known`); then all comes, and ends. */
async function goesBack(way: WayBack, known?: string): Promise<void> {
  const went = await withHost(way, (context) => failback(context, way.id, wishes)).catch((error) => {
    if (known === undefined || !isOver(error)) throw error;
    return known;
  });
  await ends(way, went);
}

/** The driver of the new migration has settled it: the old one is gone. */
function isOver(error: unknown): boolean {
  return error instanceof DlsmError && /has gone back as|there is no migration/.test(error.message);
}

async function ends(way: WayBack, backId: string): Promise<void> {
  await way.use(backId, async (client) => {
    await way.checkBy(client, backId);
    await way.writeBy(client, [[6 * MiB + 512, 1024]]);
    // All is here now: a driver in the background cuts it over when nobody has it open.
    const limit = { id: backId, bytesPerSecond: null, totalBytesPerSecond: null };
    await withHost(way, ({ destination }) => destination.ask("destination.limit", limit));
  });
  await withHost(way, async (context) => {
    const { end } = await new Driver(context, backId, { handoffCommand: null }).run();
    assert.ok(end === "done" || end === "gone");
  });
  await way.dlsm.until(backId, (status) => status === undefined, "done");
  way.checkA();
}

/** Stays, if it has not gone back; then goes back once more. */
async function stays(way: WayBack, known: string): Promise<void> {
  try {
    assert.ok(await withHost(way, (context) => resume(context, way.id, false)));
  } catch (error) {
    if (!isOver(error)) throw error;
    return await ends(way, known);
  }
  await way.check(way.id);
  await way.write(way.id, [[4 * MiB, 4096], [11 * MiB + 512, 512]]);
  await goesBack(way);
}

async function backIdOf(way: WayBack): Promise<string | undefined> {
  return await withHost(way, async (context) => {
    const { disks } = await observe(context, way.id);
    return disks[0]?.destination?.goesBackAs ?? undefined;
  });
}

/** Some at a time: most of what each takes is waiting. */
async function eachOf<T>(cases: readonly T[], nameOf: (one: T) => string, body: (one: T) => Promise<void>) {
  const left = [...cases];
  const work = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) {
      await body(one).catch((error) => {
        throw new Error(`${nameOf(one!)}: ${error.stack}`);
      });
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: 3 }, work));
  for (const result of ended) if (result.status === "rejected") throw result.reason;
}

const points: readonly (Point & { readonly then: "goesBack" | "stays" })[] = [
  { name: "destination.freeze", when: "after", then: "stays" },
  { name: "source.lift", when: "after", then: "goesBack" },
  { name: "destination.plan", when: "after", then: "stays" },
  { name: "source.export", when: "after", then: "goesBack" },
  { name: "destination.seed", when: "after", then: "stays" },
  { name: "destination.attach", when: "after", then: "goesBack" },
  { name: "destination.activate", when: "before", then: "stays" },
  { name: "destination.activate", when: "after", then: "stays" },
  { name: "destination.activate", when: "after", then: "goesBack" },
];

withTgt(
  "killed at each step, then it goes back or stays: the disk is right, and nothing is left",
  async () => {
    await eachOf(points, ({ name, when, then }) => `${when} ${name}, ${then}`, async (point) => {
      await WayBack.with(slow, async (way) => {
        await way.write(way.id, [[2 * MiB, MiB], [9 * MiB + 512, 1024]]);
        let known = "";
        const request = { ...wishes, begin: (id: string) => void (known = id) };
        await killedAt(way, point, (context) => failback(context, way.id, request));
        await (point.then === "stays" ? stays(way, known) : goesBack(way, known));
      });
    });
  },
);

withTgt(
  "killed at the end: whoever drives the new migration takes away what is left of the old one",
  async () => {
    await eachOf(["destination.retire", "source.release"] as const, String, async (name) => {
      await WayBack.with(slow, async (way) => {
        await way.write(way.id, [[2 * MiB, MiB]]);
        let backId = "";
        const request = { ...wishes, begin: (id: string) => void (backId = id) };
        await killedAt(way, { name, when: "after" }, (context) => failback(context, way.id, request));
        await ends(way, backId);
      });
    });
  },
);

const undoing = ["destination.unfreeze", "destination.abort", "source.fence", "destination.thaw"] as const;

withTgt("who stays is killed at each step, and stays when told again", async () => {
  await eachOf(undoing, String, async (name) => {
    await WayBack.with(slow, async (way) => {
      await way.write(way.id, [[2 * MiB, MiB]]);
      const attached = { name: "destination.attach", when: "after" } as const;
      await killedAt(way, attached, (context) => failback(context, way.id, wishes));
      const backId = await backIdOf(way);
      assert.not.ok(existsSync(way.dlsm.socketOf(backId!)), "nobody is served before the hand-off");
      await killedAt(way, { name, when: "after" }, (context) => resume(context, way.id, false));
      await stays(way, backId!);
    });
  });
});

const turns = [
  "destination.plan",
  "destination.written",
  "destination.attach",
  "destination.activate",
] as const;

withTgt(
  "two at once, one that goes back and one that stays: who stays wins before the hand-off",
  async () => {
    await eachOf(turns, String, async (turn) => {
      await WayBack.with(slow, async (way) => {
        await way.write(way.id, [[2 * MiB, MiB]]);
        await withHost(way, async (context) => {
          let hasStayed = false;
          const overtaken: Host = {
            ...context.source,
            async ask(name, request, options) {
              if (name === turn && !hasStayed) {
                hasStayed = true;
                await withHost(way, (other) => resume(other, way.id, false));
                await way.write(way.id, [[3 * MiB, 4096]]);
              }
              return await context.source.ask(name, request, options);
            },
          };
          await failback({ ...context, source: overtaken, destination: overtaken }, way.id, wishes).then(
            () => assert.unreachable("it went back with what was written before"),
            () => assert.ok(hasStayed),
          );
          assert.is((await context.source.ask("destination.list", {})).length, 1, "the other one is gone");
        });
        await way.check(way.id);
        await goesBack(way);
      });
    });
  },
);

/** What the driver of the new migration does by itself, once that is attached. */
async function goesBackByItself(way: WayBack, backId: string): Promise<void> {
  await withHost(way, async (context) => {
    await handOffNew(context, await setUp(context, backId), { isForced: false, command: null });
    const { disks: [{ destination }] } = await observe(context, backId);
    await settle(context, destination!);
  });
}

const overtakenAt = ["destination.freeze", "source.changed", "source.lift"] as const;

withTgt(
  "the new migration's driver is quicker than the command, and may even have ended: it has gone back",
  async () => {
    const cases = overtakenAt.flatMap((name) => [true, false].map((isEnded) => ({ name, isEnded })));
    await eachOf(
      cases,
      ({ name, isEnded }) => `${name}${isEnded ? ", ended" : ""}`,
      async ({ name, isEnded }) => {
        await WayBack.with(slow, async (way) => {
          await way.write(way.id, [[2 * MiB, MiB]]);
          // Not attached: nobody goes on with it by itself.
          const seeded = { name: "destination.seed", when: "after" } as const;
          await killedAt(way, seeded, (context) => failback(context, way.id, wishes));
          const backId = (await backIdOf(way))!;
          let isOvertaken = false;
          await withHost(way, async (context) => {
            const late: Host = {
              ...context.source,
              async ask(asked, request, options) {
                if (asked === name && !isOvertaken) {
                  isOvertaken = true;
                  await goesBackByItself(way, backId);
                  if (isEnded) await ends(way, backId);
                }
                return await context.source.ask(asked, request, options);
              },
            };
            assert.is(
              await failback({ ...context, source: late, destination: late }, way.id, wishes),
              backId,
            );
          });
          assert.ok(isOvertaken);
          if (!isEnded) await ends(way, backId);
        });
      },
    );
  },
);

withTgt(
  "a failure on the way is undone: the volume is there as before, the source read-only again",
  async () => {
    await WayBack.with(slow, async (way) => {
      await way.write(way.id, [[2 * MiB, MiB]]);
      await withHost(way, async (context) => {
        const failing: Host = {
          ...context.source,
          ask: (name, request, options) =>
            name === "destination.attach"
              ? Promise.reject(new TypeError("planted"))
              : context.source.ask(name, request, options),
        };
        const both = { ...context, source: failing, destination: failing };
        await failback(both, way.id, wishes).then(
          () => assert.unreachable(),
          (error) => assert.is(error.message, "planted"),
        );
        const [exported] = await context.source.ask("source.list", {});
        assert.ok(exported!.fence!.kinds.includes("mode"));
        assert.is(exported!.danger, null);
        assert.is((await context.source.ask("destination.list", {})).length, 1, "the other one is gone");
      });
      await way.check(way.id);
      await goesBack(way);
    });
  },
);

withTgt(
  "the engine is killed while it is to end: what was acknowledged and not flushed goes back too",
  async () => {
    await WayBack.with(["--keep-source"], async (way) => {
      await way.synced();
      await way.write(way.id, [[3 * MiB, 65_536]], false);
      const { DLSM_STATE_DIR: state } = way.dlsm.environment;
      const journal = destinationJournal(join(state!, "destination", way.id));
      journal.write({ ...journal.read()!, state: "frozen", goesBackAs: "back2345" });
      for (const pid of pidsOf(way.dlsm, "engine")) kill(pid, "SIGKILL");
      await until(() => pidsOf(way.dlsm, "engine").length === 0, "the engine is gone");
      await way.dlsm.until(way.id, (status) => status?.disks[0]?.enginePid === null, "that is seen");
      await goesBack(way);
    });
  },
);

withTgt(
  "what came to the old source after all was lifted ends the way back, and nothing is lost",
  async () => {
    await WayBack.with(slow, async (way) => {
      await way.write(way.id, [[2 * MiB, MiB]]);
      await withHost(way, async (context) => {
        const late: Host = {
          ...context.source,
          async ask(name, request, options) {
            if (name === "destination.attach") writeFileSync(way.a, "somebody", { flag: "r+" });
            return await context.source.ask(name, request, options);
          },
        };
        await failback({ ...context, source: late, destination: late }, way.id, wishes).then(
          () => assert.unreachable(),
          (error) => assert.match(error.message, /was changed/),
        );
      });
      const again = (work: typeof failback | typeof resume) =>
        withHost(way, async (context) => {
          await (work === failback ? failback(context, way.id, wishes) : resume(context, way.id, false));
        });
      await again(failback).then(
        () => assert.unreachable(),
        (error) => assert.match(error.message, /being undone/),
      );
      await again(resume).then(
        () => assert.unreachable(),
        (error) => assert.match(error.message, /was changed/),
      );
      assert.match((await way.dlsm.status(way.id))!.lastError!, /dlsm resume \w+ finishes that/);
      await execa("chattr", ["-i", way.a], { reject: false });
      chmodSync(way.a, way.modeOfA);
      writeFileSync(way.a, way.expected.subarray(0, 8), { flag: "r+" });
      await withHost(way, (context) => resume(context, way.id, true));
      await way.check(way.id);
      await way.dlsm.until(way.id, (status) => status?.phase === "synced", "all was read");
      await way.dlsm.ok("cutover", way.id);
      assert.ok(readFileSync(way.b).equals(way.expected));
    });
  },
);

test.run();
