/** An engine that runs and does not answer. */
import { readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { abort, resume } from "../../src/migration/mod.ts";
import { kill } from "../helpers/dlsm.ts";
import { locally } from "../helpers/local-migration.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";
import { tempFolder } from "../helpers/temp.ts";
import { until } from "../helpers/until.ts";
import { NbdClient } from "../integration/nbd-client.ts";

const test = suite("an engine that hangs");
const withTgt = needing(test, ["tgtd"]);

withTgt(
  "is told, is no reason to start another one, hides no other, and goes by force",
  () =>
    locally(async ({ dlsm, host, context, begin }) => {
      const [one, other] = [await begin(1), await begin(1)];
      const { pid } = one.disks[0].destination!.engine!;
      const look = async () => {
        const entries = await host.ask("destination.list", {});
        return [one, other].map((view) => entries.find(({ id }) => id === view.id)!);
      };
      kill(pid, "SIGSTOP");
      try {
        const [hung, well] = await look();
        assert.equal([hung.engine, hung.isEngineHung, hung.state, hung.isActivated], [
          null,
          true,
          "attached",
          false,
        ]);
        assert.match(hung.problem!, new RegExp(`engine of ${one.id} \\(pid ${pid}\\) does not answer`));
        assert.equal([well.engine?.state, well.isEngineHung], ["attached", false]);

        const ensured = host.ask("destination.ensure", { id: one.id, export: null, force: false });
        const error = await ensured.then(() => undefined, (cause) => cause);
        assert.match(String(error?.message), /does not answer/);
        assert.equal(pidsOf(dlsm, "engine").includes(pid), true, "it is not killed");
        assert.is(pidsOf(dlsm, "engine").length, 2);

        kill(pid, "SIGCONT");
        assert.is((await look())[0].engine?.pid, pid, "as if nothing had happened");
        kill(pid, "SIGSTOP");
        await abort(context, one.id, true);
      } finally {
        kill(pid, "SIGCONT");
      }
      await abort(context, other.id, false);
      await dlsm.nothingLeft();
    }),
);

/** Ways in which a host's run folder goes while engine and tgtd live. */
const goings: Readonly<Record<string, (run: string) => unknown>> = {
  removed: (run) => readdirSync(run).forEach((name) => rmSync(join(run, name), { recursive: true })),
  moved(run) {
    const away = tempFolder("away");
    for (const name of readdirSync(run)) renameSync(join(run, name), join(away, name));
  },
  // As logind does it.
  unmounted: async (run) => {
    goings.removed(run);
    await execa("umount", ["--lazy", run]);
  },
};

for (const [how, go] of Object.entries(goings)) {
  const who = `one whose run folder was ${how}`;
  needing(test, ["tgtd"], { root: how === "unmounted" })(
    `${who} is told, is not killed, and after its orderly end all goes on`,
    () =>
      locally(async ({ dlsm, host, context, begin, folders: { run } }) => {
        if (how === "unmounted") await execa("mount", ["-t", "tmpfs", "-o", "mode=700", "none", run]);
        const { id, disks: [{ destination }] } = await begin(1);
        const { engine, nbdSocket } = destination!;
        const pid = engine!.pid;
        await host.ask("destination.activate", { id });
        const client = await NbdClient.connect(nbdSocket);
        await client.write(8192, Buffer.alloc(4096, 7));
        await go(run);
        const [entry] = await host.ask("destination.list", { id });
        assert.equal([entry!.isEngineHung, entry!.isActivated], [true, true]);
        assert.match(entry!.problem!, `(pid ${pid}) serves its clients, but cannot be asked: its run folder`);
        assert.match(entry!.remedy!, `kill ${pid} ends it in good order`);
        for (const isForced of [false, true]) {
          await resume(context, id, isForced).then(
            () => assert.unreachable(),
            (error) => assert.match(error.message, "cannot be asked: its run folder"),
          );
        }
        assert.equal(pidsOf(dlsm, "engine"), [pid], "it is not killed");
        assert.ok((await client.read(8192, 4096)).equals(Buffer.alloc(4096, 7)), "it serves");

        kill(pid, "SIGTERM");
        await until(() => pidsOf(dlsm, "engine").length === 0, "it ends");
        await resume(context, id, false);
        const again = await NbdClient.connect(nbdSocket);
        assert.ok(
          (await again.read(8192, 4096)).equals(Buffer.alloc(4096, 7)),
          "what was never flushed is there",
        );
        again.close();
        await abort(context, id, true);
        await dlsm.nothingLeft();
      }),
  );
}

test.run();
