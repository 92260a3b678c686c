/** As another user: exports the given disk with a daemon in the given folder, and says what came of it. */
import { readFileSync } from "node:fs";
import { startDaemon } from "../../src/node-iscsi-target/mod.ts";
import { exportOptions, hasNamespace, loopback } from "./helpers.ts";
import { Probe } from "./probe.ts";
import { accessModesOf, tryToWrite } from "./write-attempts.ts";

const daemon = await startDaemon({ folder: process.argv[2]!, portal: loopback });
try {
  const options = exportOptions(process.argv[3]!);
  const exported = await daemon.exportDisk(options);
  const probe = await Probe.login({
    ...exported.portal,
    targetName: options.targetName,
    chap: options.chap.incoming,
  });
  const data = await probe.read(0, 1);
  const attempts = await tryToWrite(probe);
  const modes = accessModesOf(daemon.pid, process.argv[3]!);
  await daemon.removeTarget(options.targetName);
  const views = readFileSync(`/proc/${daemon.pid}/mountinfo`, "utf8").split("\n").filter((line) =>
    line.includes(daemon.folder)
  );
  const { openedReadOnly, view } = exported;
  console.log(
    JSON.stringify({
      openedReadOnly,
      view,
      hasNamespace,
      data: data.toString("latin1", 0, 4),
      views,
      attempts,
      modes,
    }),
  );
} finally {
  await daemon.stop();
}
