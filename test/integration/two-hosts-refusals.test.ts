/**
 * What a migration between two hosts is refused for: one clear error that names the host and the disk, the
 * documented exit code, and nothing changed on any host.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeDisk } from "../helpers/disk.ts";
import type { Ran } from "../helpers/dlsm.ts";
import { type TestHost, TestNetwork } from "../helpers/hosts/mod.ts";
import { findProgram, isRoot, needing } from "../helpers/needs.ts";
import { oldDlsm, writeProgram } from "../ssh/far-side.ts";
import { checkRefusal, type Refusal } from "./refusal.ts";
import { lastJson, programsOfTwoHosts } from "./two-hosts.ts";
import { noteAll } from "./unchanged.ts";

const programs = [...programsOfTwoHosts, "mount", "umount", "sleep"];
const test = suite("two-hosts-refusals");
const withHosts = needing(test, programs, { root: true });
const canRun = isRoot && programs.every((program) => findProgram(program) !== undefined);

/** Of all tests: its set-up is what takes long. The disk of node1 is to go to node2. */
let net: TestNetwork;
let node1: TestHost, node2: TestHost, node3: TestHost;
test.before(async () => {
  if (!canRun) return;
  net = await TestNetwork.make(["node1", "node2", "node3"]);
  [node1, node2, node3] = net.hosts as [TestHost, TestHost, TestHost];
  makeDisk(node1.path("src.img"), 8, [0, 1, 2, 3, 4, 5, 6, 7]);
  for (const host of net.hosts) {
    for (const folder of ["state", "run", "small"]) mkdirSync(host.path(folder), { mode: 0o700 });
  }
});
test.after(() => net?.close());

/** The disk and where it is to go, as a command on the host names them. */
function places(on: TestHost, name = "dst.img"): [string, string] {
  const place = (host: TestHost, path: string) =>
    `${host === on ? "" : `root@${host.name}:`}${host.path(path)}`;
  return [place(node1, "src.img"), place(node2, name)];
}

interface Case extends Pick<Refusal, "says" | "hint"> {
  /** Where the command is given: most where the fewest connections have to be made. */
  readonly on: TestHost;
  /** Instead of the usual destination: a file in node2's folder. */
  readonly name?: string;
  readonly options?: readonly string[];
  /** How it comes about; resolves to its undoing. */
  setUp?(): Promise<() => unknown>;
}

/** Of a test: a function, because the hosts are made later. */
function refuses(name: string, choose: () => Case): void {
  withHosts(name, async () => {
    const { on, name: file, options = [], says, hint, setUp } = choose();
    const undo = await setUp?.();
    try {
      const unchanged = noteAll(net.hosts);
      const command = ["migrate", ...places(on, file), ...options, "--json"];
      const ran = await on.dlsm(...command);
      check({ args: command, kind: "precondition", says, hint }, ran);
      await unchanged(ran.stderr);
    } finally {
      await undo?.();
    }
  });
}

/** Its error is all that it says. */
function check(refusal: Refusal, ran: Ran): void {
  checkRefusal(refusal, ran);
  const { error } = lastJson<{ error: { message: string; hint: string } }>(ran.stdout);
  assert.is(ran.stderr, `error: ${error.message}\n  ${error.hint}\n`);
}

/** The file has this content until it is undone. */
function rewrite(path: string, change: (content: string) => string): () => void {
  const content = readFileSync(path, "utf8");
  writeFileSync(path, change(content));
  return () => writeFileSync(path, content);
}

/** Mounts on a host; undone by unmounting. */
async function mount(host: TestHost, point: string, ...options: string[]): Promise<() => Promise<void>> {
  await must(host, "mount", ...options, point);
  return () => must(host, "umount", point);
}

async function must(host: TestHost, program: string, ...args: string[]): Promise<void> {
  const { exitCode, stderr } = await host.run(program, args);
  if (exitCode !== 0) throw new Error(`${host.name}: ${program} ${args.join(" ")}: ${stderr}`);
}

/** Packets of the host to the other one have no way. */
async function noRoute(host: TestHost, to: TestHost): Promise<() => Promise<void>> {
  await must(host, "ip", "route", "add", "unreachable", to.address);
  return () => must(host, "ip", "route", "del", "unreachable", to.address);
}

/** Nothing can be written below the path. */
async function readOnly(host: TestHost, path: string): Promise<() => Promise<void>> {
  const undo = await mount(host, path, "--bind", path);
  await must(host, "mount", "-o", "remount,bind,ro", path);
  return undo;
}

refuses("a host key that is not the known one", () => ({
  on: node3,
  setUp: () => {
    const keyOf = (host: TestHost) => readFileSync(host.path("etc/host_key.pub"), "utf8").split(" ")[1]!;
    const known = node3.path("home/.ssh/known_hosts");
    return Promise.resolve(rewrite(known, (text) => text.replaceAll(keyOf(node2), keyOf(node1))));
  },
  says: ["the host key of root@node2 is not the one that is known"],
  hint: ["ssh-keygen -R"],
}));

refuses("a host key that is not known", () => ({
  on: node1,
  setUp: () =>
    Promise.resolve(rewrite(node1.path("home/.ssh/known_hosts"), (text) => text.replace(/^node2.*\n/m, ""))),
  says: ["the host key of root@node2 is not known here"],
  hint: ["ssh root@node2", "fingerprint"],
}));

refuses("no route to a host", () => ({
  on: node3,
  setUp: () => noRoute(node3, node2),
  says: ["no route to root@node2"],
  hint: ["ssh root@node2 works"],
}));

refuses("a host's name that does not resolve", () => ({
  on: node1,
  setUp: () => Promise.resolve(rewrite(node1.path("etc/hosts"), (text) => text.replace(/^.* node2$/m, ""))),
  says: ["the name of root@node2 cannot be resolved"],
  hint: ["spelling", "DNS"],
}));

refuses("a password that ssh would ask for, and no terminal", () => ({
  on: node1,
  setUp: async () => {
    await node2.startSshd(["PasswordAuthentication yes", "PubkeyAuthentication no"]);
    return () => node2.startSshd();
  },
  says: ["ssh may not log in to root@node2", "no terminal to ask for a password"],
  hint: ["authorized_keys"],
}));

refuses("a destination's host without dlsm", () => ({
  on: node1,
  setUp: async () => {
    const [path, away] = [node2.path("bin/dlsm"), node2.path("dlsm-away")];
    // Where the machine may have one of its own.
    const unmount = await mount(node2, "/usr/local/bin", "-t", "tmpfs", "none");
    renameSync(path, away);
    return () => {
      renameSync(away, path);
      return unmount();
    };
  },
  says: ["dlsm cannot be run on root@node2", "not found"],
  hint: ["install dlsm on root@node2", "--deploy"],
}));

refuses("a source's host with another version of dlsm", () => ({
  on: node2,
  setUp: () => {
    const path = node1.path("bin/dlsm");
    const script = readFileSync(path, "utf8");
    writeProgram(path, oldDlsm("0.0.1"));
    return Promise.resolve(() => writeFileSync(path, script));
  },
  says: ["dlsm 0.0.1 is on root@node1", /and \d\S* here/],
  hint: ["same version on root@node1", "--deploy"],
}));

refuses("a source's host without tgt", () => ({
  on: node2,
  setUp: () => mount(node1, findProgram("tgtd")!, "--bind", "/dev/null"),
  says: [`node1:${node1.path("src.img")}`, "tgt is not installed on node1"],
  hint: ["apt install tgt"],
}));

refuses("a destination's file system without the space", () => ({
  on: node1,
  name: "small/dst.img",
  setUp: () => mount(node2, node2.path("small"), "-t", "tmpfs", "-o", "size=4m,mode=700", "none"),
  says: [
    `node1:${node1.path("src.img")} takes up 8 MiB`,
    `node2:${node2.path("small/dst.img")} has 4 MiB left`,
  ],
  hint: ["make space", "--force"],
}));

refuses("a state folder that cannot be written, at the destination", () => ({
  on: node1,
  setUp: () => readOnly(node2, node2.path("state")),
  says: [`on node2: the folder ${node2.path("state")}`, "read-only"],
  hint: ["DLSM_STATE_DIR"],
}));

refuses("a state folder that cannot be written, at the source", () => ({
  on: node2,
  setUp: () => readOnly(node1, node1.path("state")),
  says: [`on node1: the folder ${node1.path("state")}`, "read-only"],
  hint: ["DLSM_STATE_DIR"],
}));

refuses("a state folder that cannot be written, where the command is given", () => ({
  on: node3,
  setUp: () => readOnly(node3, node3.path("state")),
  says: [`the folder ${node3.path("state")}`, "read-only"],
  hint: ["DLSM_STATE_DIR"],
}));

refuses("a portal behind a firewall", () => ({
  on: node2,
  options: ["--portal", `${node1.address}:3260`],
  setUp: async () => {
    await net.block(node1, 3260);
    return () => net.unblock(node1, 3260);
  },
  says: ["node2 cannot reach the source's portal", `${node1.address} port 3260`, "firewall"],
  hint: ["--portal", "--tunnel"],
}));

refuses("no route from the source to the destination", () => ({
  on: node3,
  setUp: () => noRoute(node1, node2),
  says: [`node1 has no route to node2 (${node2.address})`],
  hint: ["--portal"],
}));

refuses("a portal at an address that is another host's", () => ({
  on: node1,
  options: ["--portal", node3.address],
  says: [`node1:${node1.path("src.img")}`, `${node3.address} is not an address of node1`],
  hint: ["--portal"],
}));

refuses("a portal's port that another program has", () => ({
  on: node2,
  options: ["--portal", `${node1.address}:22`],
  says: [`node1:${node1.path("src.img")}`, `port 22 of ${node1.address} is in use`],
  hint: ["another port"],
}));

refuses("a destination that is not empty", () => ({
  on: node1,
  setUp: () => {
    makeDisk(node2.path("dst.img"), 8, [3]);
    return Promise.resolve(() => rmSync(node2.path("dst.img")));
  },
  says: [`node2:${node2.path("dst.img")} exists and is not empty`],
  hint: ["--force"],
}));

refuses("a source that a program of its host can write", () => ({
  on: node2,
  setUp: async () => {
    const script = "exec 3<>src.img; echo open; exec sleep 600";
    const user = node1.start("sh", ["-c", script]);
    const isIt = ({ command }: { readonly command: string }) => command === "sleep 600";
    await node1.wait(() => user.stdout === "open\n" && node1.processes().some(isIt), "sleep has it open");
    return () => user.kill();
  },
  says: [`node1:${node1.path("src.img")} can still be written by`, "sleep"],
  hint: ["stop that", "--handoff manual"],
}));

withHosts(
  "two runs for one disk, begun on two hosts at once: the source's host lets one of them",
  async () => {
    const start = (host: TestHost, name: string) =>
      host.dlsm("migrate", ...places(host, name), "--handoff", "manual", "--detach", "--json");
    const hosts = [node2, node3];
    const runs = await Promise.all(hosts.map((host, at) => start(host, `${at}.img`)));
    const loser = runs[0]!.exitCode === 0 ? 1 : 0;
    const winner = 1 - loser;
    assert.is(runs[winner]!.exitCode, 0, runs[winner]!.stderr);
    const { id } = lastJson(runs[winner]!.stdout);
    const locked: Refusal = {
      args: ["migrate"],
      kind: "locked",
      says: [`node1:${node1.path("src.img")} is already being migrated (${id})`],
      hint: [`dlsm status ${id}`],
    };
    check(locked, runs[loser]!);
    assert.equal([0, 1].map((at) => existsSync(node2.path(`${at}.img`))), [winner === 0, winner === 1]);
    assert.equal((await node2.status()).map((status) => status.id), [id]);

    // The driver may just be connecting.
    const unchanged = noteAll(net.hosts, (command) => !/ role$|^sshd|ssh /.test(command));
    const late = await start(node3, "late.img");
    check(locked, late);
    await unchanged(late.stderr);
    await hosts[winner]!.ok("abort", id);
    await Promise.all(net.hosts.map((host) => host.nothingLeft()));
  },
);

test.run();
