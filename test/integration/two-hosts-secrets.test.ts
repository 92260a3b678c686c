/** While a disk moves between two hosts nobody else sees its secrets: not in /proc, in no log, in no file. */
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { sourceJournal } from "../../src/role/source-journal.ts";
import type { TestHost } from "../helpers/hosts/mod.ts";
import { needing } from "../helpers/needs.ts";
import { until, within } from "../helpers/processes.ts";
import { looksLike, Move, programsOfTwoHosts } from "./two-hosts.ts";
import { Watcher } from "./watcher.ts";

const test = suite("two-hosts-secrets");
const withHosts = needing(test, programsOfTwoHosts, { root: true });

/** The files that hold the secrets, for as long as the migration lasts; as they are made, too. */
const mayHoldThem =
  /^node[12] \S+\/state\/(source|destination)\/\.?[a-z0-9]+\/\.?(journal|engine\.config)(\.[0-9a-f]+\.tmp)?$/;

for (const options of [[], ["--tunnel"]]) {
  withHosts(`no secret is to be seen on any host while a disk moves ${options.join(" ")}`, async () => {
    await Move.with(["node1", "node2", "node3"], {}, async (move) => {
      const watcher = new Watcher(move.net.hosts);
      try {
        await moveWatched(move, watcher, options);
      } finally {
        await watcher.stop();
      }
    });
  });
}

async function moveWatched(move: Move, watcher: Watcher, options: readonly string[]): Promise<void> {
  const { from, to, net } = move;
  const command = move.start(net.host("node3"), "--handoff", "manual", "--bwlimit", "8MiB/s", ...options);
  const id = await move.idOn(from, "source");
  await move.until(id, (status) => status?.phase === "attached", "attached");
  const { chap } = sourceJournal(join(from.env.DLSM_STATE_DIR!, "source", id)).read()!.export;
  const secrets = [chap.incoming.secret, chap.outgoing.secret];
  const formats = [["status", id, "--json"], ["status"]];
  const asked = await Promise.all(net.hosts.flatMap((host) => formats.map((words) => host.ok(...words))));
  for (const { stdout, stderr } of asked) watcher.note(stdout + stderr, "status");
  await to.ok("activate", id);
  const { exitCode, stdout, stderr } = await within(command.ended, "the end");
  assert.is(exitCode, 0, stderr);
  watcher.note(stdout + stderr, "migrate");
  move.checkDestination();

  for (const secret of secrets) {
    assert.match(secret, /^[0-9a-f]{32}$/, "a real secret");
    const places = spellings(secret).flatMap((text) => watcher.find(text));
    assert.equal(places.filter((place) => !mayHoldThem.test(place)), [], "where a secret was seen");
    assert.ok(places.length > 0, "the watcher reads what holds them");
  }
  seesAll(watcher, move);
  assert.equal([...watcher.open], [], "modes of what dlsm made");
  assert.is(lstatSync(move.destination).mode & 0o777, 0o600, "the disk that was made");
  for (const host of net.hosts) await seesPlanted(watcher, host, secrets[0]!);
  for (const host of net.hosts) {
    assert.equal(filesWith(host, secrets), [], "files with a secret in the end");
  }
}

/** The watcher was there in time for all that runs. */
function seesAll(watcher: Watcher, { from, to, net }: Move): void {
  const commands = (host: TestHost, pattern: RegExp) =>
    watcher.textsAt(`${host.name} cmdline`).some((text) => pattern.test(text.replaceAll("\0", " ").trim()));
  const parts = [[from, looksLike.tgtd], [from, looksLike.role], [to, looksLike.engine], [
    to,
    looksLike.role,
  ]];
  for (const [host, pattern] of [...parts, [net.host("node3"), /(^|\/)ssh /]] as [TestHost, RegExp][]) {
    assert.ok(commands(host, pattern), `${pattern} on ${host.name}`);
  }
}

/** What the test forbids would be seen, on this host. */
async function seesPlanted(watcher: Watcher, host: TestHost, secret: string): Promise<void> {
  const env = { ...host.env, PLANTED: secret };
  const planted = [
    host.start("tail", ["-f", "/dev/null", secret]),
    host.start("sleep", ["60"], { env }),
  ];
  const isSeen = (what: string) => watcher.find(secret).includes(`${host.name} ${what}`);
  await until(() => isSeen("cmdline") && isSeen("environ"), `the planted ones are seen on ${host.name}`);
  await Promise.all(planted.map((each) => each.kill()));
}

/** As it is, and as it may be written. */
function spellings(secret: string): string[] {
  const bytes = Buffer.from(secret);
  const base64 = bytes.toString("base64").replace(/=+$/, "");
  return [secret, bytes.toString("hex"), base64, bytes.toString("base64url")];
}

/** Of the host's folder and /run; the programs that tell are no part of it. */
function filesWith(host: TestHost, secrets: readonly string[]): string[] {
  const root = `/proc/${host.space.pid}/root`;
  return [host.folder, "/run"].flatMap((folder) =>
    readdirSync(root + folder, { recursive: true, encoding: "utf8" }).map((name) => join(folder, name))
  ).filter((path) => {
    if (!lstatSync(root + path, { throwIfNoEntry: false })?.isFile()) return false;
    const content = readFileSync(root + path, "latin1");
    return secrets.some((secret) => content.includes(secret));
  });
}

test.run();
