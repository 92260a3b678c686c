/** Programs that dlsm runs, and what it cannot do without them. */
import { execa } from "execa";
import { findProgram } from "../../lib/program.ts";
import { canKeepReadOnly } from "../../node-iscsi-target/mod.ts";
import { type Finding, missing, note, ok } from "./finding.ts";

const versionTimeoutMs = 10_000;

interface Program {
  readonly check: string;
  readonly name: string;
  /** What cannot be done without it. */
  readonly without: string;
  /** Debian's and Ubuntu's. */
  readonly packageName: string;
  readonly isNeeded?: true;
  readonly versionFlag?: string;
}

const programs: readonly Program[] = [
  {
    check: "tgt",
    name: "tgtd",
    without: "this host cannot be a source",
    packageName: "tgt",
    isNeeded: true,
    versionFlag: "-V",
  },
  {
    check: "tgt",
    name: "tgtadm",
    without: "this host cannot be a source",
    packageName: "tgt",
    isNeeded: true,
  },
  {
    check: "ssh",
    name: "ssh",
    without: "this host reaches no other one",
    packageName: "openssh-client",
    versionFlag: "-V",
  },
  {
    check: "ip",
    name: "ip",
    without: "the portal between two hosts has to be named with --portal",
    packageName: "iproute2",
  },
  {
    check: "blkid",
    name: "blkid",
    without: "a block device can be a destination with --force only",
    packageName: "util-linux",
  },
  {
    check: "qemu",
    name: "qemu-io",
    without: "dlsm demo has no client to show",
    packageName: "qemu-utils",
    versionFlag: "--version",
  },
  {
    check: "libnbd",
    name: "nbdcopy",
    without: "a volume cannot be copied by hand with nbdcopy",
    packageName: "libnbd-bin",
    versionFlag: "--version",
  },
];

export async function programFindings(): Promise<Finding[]> {
  const found = await Promise.all(programs.map(programFinding));
  return [...found, await viewFinding()];
}

async function programFinding(program: Program): Promise<Finding> {
  const { check, name, without, packageName } = program;
  const path = findProgram(name);
  if (path === undefined) {
    const say = program.isNeeded === true ? missing : note;
    return say(check, name, `${name} is not installed: ${without}`, `apt install ${packageName}`);
  }
  const version = program.versionFlag === undefined ? undefined : await versionOf(path, program.versionFlag);
  return ok(check, name, version === undefined ? path : `${path}, ${version}`);
}

/** The first line that it says; undefined if it says nothing. */
async function versionOf(path: string, flag: string): Promise<string | undefined> {
  const { all } = await execa(path, [flag], {
    all: true,
    reject: false,
    stdin: "ignore",
    timeout: versionTimeoutMs,
    killSignal: "SIGKILL",
    env: { LC_ALL: "C" },
  });
  return all.split("\n")[0].trim() || undefined;
}

/** Whether tgtd can be kept from opening a source for writing. */
async function viewFinding(): Promise<Finding> {
  const subject = "unshare";
  if (await canKeepReadOnly()) {
    return ok("read-only-view", subject, "tgtd is kept from opening a source file for writing");
  }
  return note(
    "read-only-view",
    subject,
    "tgtd opens sources for writing here, though it never writes (the LUN is read-only): " +
      "it cannot be given a mount namespace of its own",
    "apt install util-linux mount; without root, see that user namespaces are allowed " +
      "(sysctl kernel.unprivileged_userns_clone)",
  );
}
