/** The fence of files, with real writers and tgtd: what it changes, what it sees, what it gives back. */
import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { exitCodes } from "../../src/lib/errors.ts";
import { Journal } from "../../src/lib/journal.ts";
import type { SourceRecord } from "../../src/role/source-journal.ts";
import { makeDisk, MiB } from "../helpers/disk.ts";
import { findProgram, isRoot, needing } from "../helpers/needs.ts";
import { closedToOthers, nobody, runAsNobody } from "../helpers/nobody.ts";
import { tempFolder } from "../helpers/temp.ts";
import { startWriter } from "../helpers/writer.ts";
import {
  assertFile,
  type Exported,
  hasFlag,
  id,
  modeOf,
  newDisk,
  refusalOf,
  setImmutable,
  withExported,
} from "./fencing.ts";

const test = suite("fence");
const withTgt = needing(test, ["tgtd"]);
const asNobody = needing(test, ["tgtd", "setpriv"], { root: true, unless: await closedToOthers() });
/** With other programs than the system's. */
async function inPath<T>(folder: string, work: () => Promise<T>): Promise<T> {
  const { PATH } = process.env;
  process.env.PATH = `${folder}:${PATH}`;
  try {
    return await work();
  } finally {
    process.env.PATH = PATH;
  }
}

/** Writes through a descriptor that was open before; the flag is lifted first, because some file systems heed it. */
async function writeThrough(path: string, descriptor: number): Promise<void> {
  await setImmutable(path, false);
  writeSync(descriptor, Buffer.alloc(512, "x"), 0, 512, 4096);
}

const kinds = isRoot && hasFlag ? ["mode", "immutable"] as const : ["mode"] as const;

withTgt("fence() makes a file read-only, unfence() gives it back exactly; both can be repeated", async () => {
  for (const mode of [0o640, 0o4761, 0o444]) {
    const path = newDisk(mode);
    await withExported(path, async (exported) => {
      const before = statSync(path, { bigint: true });
      for (let time = 0; time < 2; time++) {
        const { users, kinds: had } = await exported.role.fence({ id, force: false });
        assert.equal({ users, had }, { users: [], had: kinds });
        await assertFile(path, mode & ~0o222, true);
        const { fence, danger } = await exported.entry();
        assert.equal({ fence, danger }, { fence: { kinds }, danger: null });
      }
      assert.equal(await exported.role.unfence({ id }), { wasFenced: true, note: null });
      await assertFile(path, mode, false);
      assert.equal(await exported.role.unfence({ id }), { wasFenced: false, note: null });
      const after = statSync(path, { bigint: true });
      assert.is(after.mtimeNs, before.mtimeNs);
      assert.is((await exported.entry()).fence, null);
    });
  }
});

withTgt("fence() keeps root from opening, truncating and unlinking the file", async () => {
  if (kinds.length === 1) return;
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    for (const change of [() => openSync(path, "r+"), () => truncateSync(path, 0), () => rmSync(path)]) {
      assert.throws(change, /EPERM/);
    }
  });
});

withTgt("what was immutable before stays so", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await setImmutable(path, true);
    await exported.role.fence({ id, force: false });
    await exported.role.unfence({ id });
    await assertFile(path, 0o640, true);
    await setImmutable(path, false);
  });
});

withTgt("fence() is refused while somebody has the file open for writing, and undone", async () => {
  const path = newDisk();
  const writer = await startWriter(path);
  try {
    await withExported(path, async (exported) => {
      const refusal = await refusalOf(exported.role.fence({ id, force: false }));
      assert.is(refusal.exitCode, exitCodes.precondition);
      assert.ok(refusal.message.includes(path), refusal.message);
      assert.ok(refusal.message.includes(`process ${writer.pid} (${writer.command})`), refusal.message);
      assert.match(refusal.hint!, `dlsm activate ${id}; --force`);
      await assertFile(path, 0o640, false);
      assert.is(exported.fence, null);
      assert.is(await exported.danger(), "none", "nothing is watched before the hand-off");
    });
  } finally {
    await writer.stop();
  }
});

withTgt("--force fences all the same, and the writer is shown as a danger until it is gone", async () => {
  const path = newDisk();
  const writer = await startWriter(path);
  try {
    await withExported(path, async (exported) => {
      const { users } = await exported.role.fence({ id, force: true });
      assert.equal(users.map(({ pid }) => pid), [writer.pid]);
      await assertFile(path, 0o440, true);
      assert.match(await exported.danger(), `can be written by process ${writer.pid}`);
      // A fence that stands is not taken away by a refusal: the hand-off may have happened.
      await refusalOf(exported.role.fence({ id, force: false }));
      await assertFile(path, 0o440, true);
      await writer.stop();
      assert.is(await exported.danger(), "none");
    });
  } finally {
    await writer.stop();
  }
});

withTgt("a role that is asked again and again looks for writers every two seconds at most", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    const role = exported.role;
    const danger = async () => (await role.list({}))[0]!.danger;
    const from = performance.now();
    assert.is(await danger(), null);
    await setImmutable(path, false);
    chmodSync(path, 0o640);
    const writer = await startWriter(path);
    try {
      const first = await danger();
      if (performance.now() - from < 1000) assert.is(first, null, "as it was looked up before");
      const deadline = performance.now() + 20_000;
      while (await danger() === null) assert.ok(performance.now() < deadline, "it is never seen");
      assert.match((await danger())!, `process ${writer.pid}`);
    } finally {
      await writer.stop();
    }
  });
});

const changes: [string, (path: string, descriptor: number) => Promise<void> | void, RegExp][] = [
  ["a write through a descriptor that was open before", writeThrough, /its modification time changed, at 20/],
  ["a longer file", async (path) => {
    await setImmutable(path, false);
    truncateSync(path, 5 * MiB);
  }, /its size was 4194304 bytes and is 5242880/],
  ["a file cut off", async (path, descriptor) => {
    await writeThrough(path, descriptor);
    truncateSync(path, MiB);
  }, /its size was 4194304 bytes and is 1048576.*modification time/],
  ["another file in its place", async (path) => {
    await setImmutable(path, false);
    renameSync(path, `${path}.old`);
    makeDisk(path, 4, [0]);
  }, /another disk is at its path/],
  ["no file in its place", async (path) => {
    await setImmutable(path, false);
    rmSync(path);
  }, /cannot be looked at any more.*ENOENT/],
];
for (const [what, change, says] of changes) {
  withTgt(`danger: ${what}`, async () => {
    const path = newDisk();
    await withExported(path, async (exported) => {
      const descriptor = openSync(path, "r+");
      await exported.role.fence({ id, force: true });
      assert.is(await exported.danger(), "none");
      await change(path, descriptor);
      closeSync(descriptor);
      const danger = await exported.danger();
      assert.match(danger, says);
      assert.ok(danger.includes(path), danger);
    });
  });
}

withTgt("reading and looking at the file is no danger", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    readFileSync(path);
    await exported.role.hash({ id, pieces: [[[0, MiB]]] });
    await setImmutable(path, false);
    chmodSync(path, 0o400);
    assert.is(await exported.danger(), "none");
    await exported.role.unfence({ id });
    assert.is(modeOf(path), 0o400, "a mode that somebody else has set since is left");
  });
});

withTgt("what is about to be changed is in the journal before it is", async () => {
  if (kinds.length === 1) return;
  const path = newDisk();
  const bin = tempFolder("bin");
  await withExported(path, async (exported) => {
    const seen = join(bin, "seen");
    const script = `#!/bin/sh\ncp '${exported.journal.path}' '${seen}'; exec ${findProgram("chattr")} "$@"\n`;
    writeFileSync(join(bin, "chattr"), script, { mode: 0o755 });
    const recordThen = () => new Journal(seen, "source", 2, (value) => value as SourceRecord).read()!;
    await inPath(bin, () => exported.role.fence({ id, force: false }));
    const original = { mode: 0o640, isImmutable: false, isReadOnly: null };
    assert.equal(recordThen().fence, { original, kinds: [], notes: [], baseline: null });
    rmSync(seen);
    await inPath(bin, () => exported.role.unfence({ id }));
    assert.equal(recordThen().fence!.original, original, "it goes when all is undone");
  });
});

withTgt(
  "killed at any point of fence(): unfence() and release() give back what the journal says",
  async () => {
    const original = { mode: 0o640, isImmutable: hasFlag ? false : null, isReadOnly: null };
    const unfinished = { original, kinds: [], notes: [], baseline: null };
    const points: [string, (path: string) => Promise<void> | void][] = [
      ["before the first change", () => {}],
      ["after the mode", (path) => chmodSync(path, 0o440)],
      ["after the flag", async (path) => {
        chmodSync(path, 0o440);
        await setImmutable(path, true);
      }],
      ["after the flag was taken away again", (path) => chmodSync(path, 0o440)],
    ];
    const ways: [string, (exported: Exported) => Promise<unknown>][] = [
      ["unfence", (exported) => exported.role.unfence({ id })],
      ["ensure", (exported) => exported.killTgtd().then(() => exported.role.ensure({ id, force: false }))],
      ["release", (exported) => exported.role.release({ id, force: false })],
      ["fence, unfence", async (exported) => {
        await exported.role.fence({ id, force: false });
        assert.equal(exported.fence!.original, original);
        await exported.role.unfence({ id });
      }],
    ];
    for (const [point, change] of points) {
      for (const [way, undo] of ways) {
        const path = newDisk();
        await withExported(path, async (exported) => {
          exported.rewrite((record) => ({ ...record, fence: unfinished }));
          await change(path);
          assert.is((await exported.entry()).fence, null, "one that is not finished is none");
          await undo(exported);
          await assertFile(path, 0o640, false, `${point}, ${way}`);
          if (way !== "release") assert.is(exported.fence, null);
        });
      }
    }
  },
);

withTgt("killed between giving back and writing that down: unfence() is repeated", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    const { fence } = exported;
    await exported.role.unfence({ id });
    exported.rewrite((record) => ({ ...record, fence }));
    assert.equal(await exported.role.unfence({ id }), { wasFenced: true, note: null });
    await assertFile(path, 0o640, false);
  });
});

withTgt("ensure() starts tgtd again on a fenced file, and the fence stands afterwards", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    const { baseline } = exported.fence!;
    await exported.killTgtd();
    await exported.role.ensure({ id, force: false });
    assert.ok((await exported.entry()).tgtdPid !== null);
    await assertFile(path, 0o440, true);
    assert.equal(exported.fence!.baseline, baseline);
    assert.is(await exported.danger(), "none");
    // Also where only the fence is gone.
    await setImmutable(path, false);
    chmodSync(path, 0o640);
    await exported.role.ensure({ id, force: false });
    await assertFile(path, 0o440, true);
  });
});

withTgt("a restart of the machine: what was written meanwhile is a danger, and no refusal", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    await exported.killTgtd();
    exported.rewrite((record) => ({
      ...record,
      bootId: "before",
      fence: { ...record.fence!, baseline: { ...record.fence!.baseline!, bootId: "before" } },
    }));
    assert.is(await exported.danger(), "none");
    await setImmutable(path, false);
    chmodSync(path, 0o640);
    utimesSync(path, new Date(), new Date());
    await exported.role.ensure({ id, force: false });
    await assertFile(path, 0o440, true);
    assert.match(await exported.danger(), "modification time changed");
    await exported.role.unfence({ id });
    await assertFile(path, 0o640, false);
  });
});

withTgt(
  "release() gives the file back; a stranger at its path is not touched, and that is said",
  async () => {
    const path = newDisk();
    await withExported(path, async (exported) => {
      await exported.role.fence({ id, force: false });
      await setImmutable(path, false);
      renameSync(path, `${path}.old`);
      makeDisk(path, 4, [1]);
      chmodSync(path, 0o440);
      await setImmutable(path, true);
      const refusal = await refusalOf(exported.role.release({ id, force: false }));
      assert.is(refusal.exitCode, exitCodes.precondition);
      assert.match(refusal.hint!, "--force");
      assert.ok(exported.fence !== null, "the record is left");
      const { wasThere, note } = await exported.role.release({ id, force: true });
      assert.is(wasThere, true);
      assert.match(
        note!,
        hasFlag ? /another disk now.*chattr -i, chmod 0640/ : /another disk now.*chmod 0640/,
      );
      await assertFile(path, 0o440, true);
      await setImmutable(path, false);
    });
  },
);

withTgt("release() of a file that is gone goes on if forced", async () => {
  const path = newDisk();
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    await setImmutable(path, false);
    rmSync(path);
    assert.match((await refusalOf(exported.role.unfence({ id }))).message, "is gone");
    assert.match((await exported.role.release({ id, force: true })).note!, "is gone");
    assert.equal(await exported.role.list({}), []);
  });
});

withTgt("a release that cannot give the file back leaves the record, and can be repeated", async () => {
  if (kinds.length === 1) return;
  const path = newDisk();
  const bin = tempFolder("bin");
  symlinkSync("/bin/false", join(bin, "chattr"));
  await withExported(path, async (exported) => {
    await exported.role.fence({ id, force: false });
    const error = await inPath(bin, () => refusalOf(exported.role.release({ id, force: true })));
    assert.is(error.exitCode, exitCodes.failed);
    assert.match(error.message, "cannot be given back");
    assert.ok(exported.fence !== null);
    assert.is((await exported.role.release({ id, force: false })).note, null);
    await assertFile(path, 0o640, false);
  });
});

asNobody("without root: the mode of an own file; of a stranger's nothing, and that is no error", async () => {
  const folder = tempFolder("fence");
  chmodSync(folder, 0o755);
  const own = join(folder, "own");
  mkdirSync(own);
  chownSync(own, nobody, nobody);
  const run = async (path: string) => {
    makeDisk(path, 4, [0]);
    chmodSync(path, 0o644);
    if (path.startsWith(own)) chownSync(path, nobody, nobody);
    const { stdout, stderr } = await runAsNobody(join(import.meta.dirname!, "fence-as-user.ts"), own, path);
    assert.is(stderr, "");
    return JSON.parse(stdout);
  };
  const mine = await run(join(own, "disk"));
  assert.equal({ kinds: mine.kinds, mode: mine.mode, restored: mine.restored }, {
    kinds: ["mode"],
    mode: "444",
    restored: "644",
  });
  assert.match(mine.notes.join(), "cannot be made immutable");
  assert.is(mine.before, null);
  assert.match(mine.after, "its modification time changed", "who had it open before goes on writing");
  const other = await run(join(folder, "disk"));
  assert.equal({ kinds: other.kinds, mode: other.mode, before: other.before, after: other.after }, {
    kinds: [],
    mode: "644",
    before: null,
    after: null,
  });
  assert.match(other.notes.join(), /its mode cannot be changed \(EPERM\)/);
});

test.run();
