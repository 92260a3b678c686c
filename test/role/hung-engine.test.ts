/** An engine that runs and does not answer. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { abort } from "../../src/migration/mod.ts";
import { kill } from "../helpers/dlsm.ts";
import { locally } from "../helpers/local-migration.ts";
import { needing } from "../helpers/needs.ts";
import { pidsOf } from "../helpers/processes.ts";

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

test.run();
