/** `host.survey` and `host.clean`: what a host can do, what is missing, what was left behind. */
import { existsSync } from "node:fs";
import { hostname, release } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { LockedError, messageOf } from "../../lib/errors.ts";
import { withLock } from "../../lib/lock.ts";
import type { HostFacts } from "../host-messages.ts";
import { lockPath, type RoleFolders } from "../layout.ts";
import { type Cleaned, type Finding, note, ok } from "./finding.ts";
import { deployedFindings } from "./deployed.ts";
import { folderFindings } from "./folders.ts";
import { kernelFindings } from "./kernel.ts";
import { portFindings } from "./ports.ts";
import { programFindings } from "./programs.ts";
import { type Entries, mayMend, recordFindings } from "./records.ts";
import { findStrays, type Stray } from "./strays.ts";

/** A step of a migration may take that long; what is left behind can be told only between two. */
const surveyLockTimeoutMs = 3_000;
const cleanLockTimeoutMs = 60_000;
const mendTimeoutMs = 3_000;
const mendPollMs = 100;

/** Looks at everything; changes nothing but for making the state and run folders, as every command does. */
export async function survey(
  folders: RoleFolders,
  facts: HostFacts,
  entries: () => Promise<Entries>,
): Promise<Finding[]> {
  const findings = [
    ...selfFindings(facts),
    ...folderFindings(folders),
    ...await programFindings(),
    ...kernelFindings(),
    ...deployedFindings(),
  ];
  if (!existsSync(folders.run)) return findings;
  return [
    ...findings,
    ...portFindings(folders),
    ...recordFindings(folders, await settled(entries)),
    ...await strayFindings(folders),
  ];
}

/** A driver that was just started, or starts an engine or tgtd again, is given the time for it. */
async function settled(read: () => Promise<Entries>): Promise<Entries> {
  const deadline = performance.now() + mendTimeoutMs;
  for (;;) {
    const entries = await read();
    if (!mayMend(entries) || performance.now() > deadline) return entries;
    await sleep(mendPollMs);
  }
}

/** Removes what is provably left over. Throws LockedError if the host is busy. */
export function clean(folders: RoleFolders): Promise<Cleaned[]> {
  return alone(folders, cleanLockTimeoutMs, async () => {
    const cleaned: Cleaned[] = [];
    for (const { finding, remove } of await findStrays(folders)) {
      if (remove !== null) cleaned.push(await removed(finding, remove));
    }
    return cleaned;
  });
}

async function removed(finding: Finding, remove: NonNullable<Stray["remove"]>): Promise<Cleaned> {
  try {
    return { finding, isGone: true, outcome: await remove() };
  } catch (error) {
    return { finding, isGone: false, outcome: messageOf(error) };
  }
}

async function strayFindings(folders: RoleFolders): Promise<Finding[]> {
  try {
    const strays = await alone(folders, surveyLockTimeoutMs, () => findStrays(folders));
    return strays.map(({ finding }) => finding);
  } catch (error) {
    if (!(error instanceof LockedError)) throw error;
    return [note(
      "left-over",
      folders.run,
      "what was left behind cannot be told while another dlsm sets up or ends a migration here",
      "dlsm doctor again, when that is done",
    )];
  }
}

function selfFindings({ version, runtime, user, uid }: HostFacts): Finding[] {
  const self = ok("dlsm", "dlsm", `dlsm ${version} under ${runtime}, Linux ${release()}`);
  const text = `${user} (uid ${uid})`;
  if (uid === 0) return [self, ok("user", user, text)];
  return [
    self,
    note(
      "user",
      user,
      `${text}: only disks, processes and migrations of this user are seen`,
      "nothing, if the disks are this user's; else run dlsm as root",
    ),
  ];
}

function alone<T>(folders: RoleFolders, timeoutMs: number, work: () => Promise<T>): Promise<T> {
  return withLock(lockPath(folders), { timeoutMs, busy: `another dlsm is busy on ${hostname()}` }, work);
}
