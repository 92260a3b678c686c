/** What is told of a migration whose two roles are asked one after the other. */
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { UnreachableError } from "../../src/lib/errors.ts";
import { AddressBook } from "../../src/migration/address-book.ts";
import { allStatuses } from "../../src/migration/hosts.ts";
import type { Host, SourceEntry } from "../../src/role/mod.ts";
import { tempFolder } from "../helpers/temp.ts";
import { destination, source } from "./entries.ts";

const test = suite("hosts");

const atNode2 = { host: "node2", path: "/dst", reach: "node2", hostId: "two" };
const exported = { ...source, destination: atNode2, source: { ...source.source, hostId: "one" } };

/** As `hostWith`, but nobody answers there after the first look. */
function lostAfterOne(host: Host): Host {
  let looks = 0;
  const ask = (name: string, ...rest: unknown[]) => {
    if (name === "source.list" && looks++ > 0) return Promise.reject(lost);
    return host.ask(name as never, ...rest as [never]);
  };
  return { ...host, ask } as unknown as Host;
}

const lost = new UnreachableError("node1 does not answer", { host: "node1", wasReached: true });

/** A host that gives these lists of exports, one after the other, the last one for ever; and has no destination. */
function hostWith(reach: string | null, hostId: string, lists: SourceEntry[][]): Host {
  const answers = lists.values();
  let last: SourceEntry[] = [];
  const ask = (name: string) =>
    Promise.resolve(name === "source.list" ? last = answers.next().value ?? last : []);
  const facts = () => Promise.resolve({ hostId });
  return { reach, ask, facts, close: () => Promise.resolve() } as unknown as Host;
}

async function statusesOf(lists: SourceEntry[][]) {
  const hosts = [hostWith(null, "one", lists), hostWith("node2", "two", [])];
  const at = (reach: string | null) => hosts.find((host) => host.reach === reach)!;
  return await allStatuses({ at, book: new AddressBook(tempFolder()), named: [] });
}

test("an export whose destination knows nothing of it can be taken away", async () => {
  const [status, ...others] = await statusesOf([[exported]]);
  assert.equal(others, []);
  assert.is(status?.phase, "exported");
  assert.match(status.lastError!, "its destination, node2, knows nothing of it: dlsm abort abcd1234");
});

test("one that ended after its export was listed, and before its destination was asked, is not told of", async () => {
  assert.equal(await statusesOf([[exported], []]), []);
  const here = { ...exported, destination: { ...exported.source, path: "/dst" } };
  assert.equal(await statusesOf([[here], []]), [], "both on one host");
});

test("a destination that does not answer is told of, and asked once", async () => {
  let asked = 0;
  const away = new UnreachableError("node2 does not answer", { host: "node2", wasReached: false });
  const ask = () => (asked++, Promise.reject(away));
  const two = { reach: "node2", ask, facts: ask, close: () => Promise.resolve() } as unknown as Host;
  const at = (reach: string | null) => reach === null ? hostWith(null, "one", [[exported]]) : two;
  const [status] = await allStatuses({ at, book: new AddressBook(tempFolder()), named: ["node2"] });
  assert.equal([status?.phase, status?.lastError, asked], ["exported", away.message, 1]);
});

test("a source that is lost between two looks: the migration is told of as its destination has it", async () => {
  const far = { ...destination, source: { ...exported.source, reach: "node1" }, destination: atNode2 };
  const one = lostAfterOne(hostWith(null, "one", [[exported]]));
  const two = hostWith("node2", "two", []);
  const ask = (name: string) => Promise.resolve(name === "destination.list" ? [far] : []);
  const hosts = [one, { ...two, ask } as unknown as Host];
  const at = (reach: string | null) => hosts.find((host) => host.reach === reach)!;
  const statuses = await allStatuses({ at, book: new AddressBook(tempFolder()), named: [] });
  assert.equal(statuses.map(({ phase, lastError }) => [phase, lastError]), [["active", lost.message]]);
});

test("a source that is lost then, and nothing at its destination: nobody is told to take it away", async () => {
  const one = lostAfterOne(hostWith(null, "one", [[exported]]));
  const hosts = [one, hostWith("node2", "two", [])];
  const at = (reach: string | null) => hosts.find((host) => host.reach === reach)!;
  const [status] = await allStatuses({ at, book: new AddressBook(tempFolder()), named: [] });
  assert.equal([status?.phase, status?.lastError], ["exported", lost.message]);
});

test.run();
