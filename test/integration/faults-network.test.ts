/**
 * A source behind a network that loses everything without a word, or resets connections, in the midst of messages
 * too: what is here goes on, what is not waits, and all comes over once. (Invariants 3 and 9.)
 */
import { readFileSync, writeFileSync } from "node:fs";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Random } from "../engine/memory.ts";
import { decodeTicket, encodeTicket } from "../../src/role/ticket.ts";
import { MiB } from "../helpers/disk.ts";
import { Dlsm } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { within } from "../helpers/processes.ts";
import { History, makeSectorDisk } from "../helpers/sectors.ts";
import { TcpProxy } from "../helpers/tcp-proxy.ts";
import { until } from "../helpers/until.ts";
import { checkRead, write } from "./guest.ts";
import { NbdClient } from "./nbd-client.ts";
import { explains, seed } from "./under-load.ts";

const test = suite("faults: the network");
const withTgt = needing(test, ["tgtd"]);

const sizeMiB = 48;
const dataMiB = Array.from({ length: sizeMiB }, (_, at) => at);
const random = new Random(seed);
const cutConnections = 4;

interface Scene {
  readonly to: Dlsm;
  readonly id: string;
  readonly proxy: TcpProxy;
  readonly history: History;
  connect(): Promise<NbdClient>;
  /** All is brought over and released; compared with what is recorded. */
  finish(): Promise<void>;
}

/** A migration by ticket; the ticket leads to a proxy before the portal. */
async function behindProxy(limit: string, body: (scene: Scene) => Promise<void>): Promise<void> {
  const [from, to] = [new Dlsm(), new Dlsm()];
  let proxy: TcpProxy | undefined;
  const clients: NbdClient[] = [];
  try {
    const [source, destination] = [from.path("src.img"), to.path("dst.img")];
    makeSectorDisk(source, sizeMiB, dataMiB);
    const before = readFileSync(source);
    const exported = await from.ok("export", source, "--allow", "127.0.0.1");
    const ticket = decodeTicket(exported.stdout.trim(), "the test");
    const { id } = ticket;
    proxy = await TcpProxy.start(ticket.export.port);
    const led = encodeTicket({ ...ticket, export: { ...ticket.export, port: proxy.port } });
    writeFileSync(to.path("ticket"), led, { mode: 0o600 });
    await to.ok("attach", "ticket", destination, "--detach", "--hold-cutover", "--bwlimit", limit);
    await to.ok("activate", id);
    const history = new History(sizeMiB, dataMiB);
    await body({
      to,
      id,
      proxy,
      history,
      async connect() {
        clients.push(await NbdClient.connect(to.socketOf(id)));
        return clients.at(-1)!;
      },
      async finish() {
        for (const client of clients) client.close();
        await to.ok("limit", id, "off");
        await to.until(id, (status) => status?.phase === "released", "all is here");
        await to.ok("cutover", id);
        await to.until(id, (status) => status === undefined, "done");
        assert.is(history.settleFile(destination), undefined);
        await from.ok("release", id);
        assert.ok(readFileSync(source).equals(before), "the source is as it was");
        await from.nothingLeft();
        await to.nothingLeft();
      },
    });
  } catch (error) {
    throw new Error(`seed ${seed}: ${error}`, { cause: error });
  } finally {
    for (const client of clients) client.close();
    await proxy?.close();
    await from.close();
    await to.close();
  }
}

const silence = () =>
  behindProxy("64KiB/s", async ({ to, id, proxy, history, connect, finish }) => {
    const client = await connect();
    await write(client, history, 30, 7);
    await checkRead(client, history, 31);
    proxy.mode = "silent";
    let waiting = 1;
    const absent = checkRead(client, history, 40).then(() => waiting--);
    absent.catch(() => {});
    for (let value = 8; value < 40; value++) {
      await write(client, history, 2 * (value % 16), value);
      await checkRead(client, history, 2 * (value % 16));
    }
    await checkRead(client, history, 31);
    await client.flush();
    await to.until(id, (status) => status?.waitingForSource === true, "the silence is noticed");
    await explains(to, id, /^ {2}the source cannot be reached: reads of what is not here yet wait/);
    assert.is(waiting, 1, "what is absent waits");
    await write(client, history, 33, 41);
    await checkRead(client, history, 33);

    // It is heard of again, and says no.
    proxy.mode = "reset";
    await checkRead(client, history, 33);
    await write(client, history, 34, 42);
    assert.is(waiting, 1, "what is absent waits still");
    proxy.mode = "forward";
    await within(absent, "what was absent");
    await to.until(id, (status) => status?.waitingForSource === false, "the source is back");
    await checkRead(client, history, 41);
    await finish();
  });

const cuts = () =>
  behindProxy("24MiB/s", async ({ to, id, proxy, history, connect, finish }) => {
    const client = await connect();
    // Those that stand have no limit: new ones take their place. The wait before the next one doubles each time.
    proxy.cutEach(() => proxy.cuts < cutConnections ? 64 * 1024 + random.below(2 * MiB) : Infinity);
    proxy.mode = "reset";
    proxy.mode = "forward";
    for (let value = 2; value < 40; value++) {
      await write(client, history, random.below(sizeMiB), value);
      await checkRead(client, history, random.below(sizeMiB));
    }
    await until(() => proxy.cuts >= cutConnections, "connections are cut");
    const last = await to.until(id, (status) => {
      const disk = status?.disks[0];
      return disk !== undefined && disk.residentBytes === disk.sizeBytes;
    }, "all is here");
    const { fetchedBytes: { demand, readahead, sync }, refetchedBytes } = last!.disks[0];
    assert.is(refetchedBytes, 0);
    assert.ok(demand + readahead + sync <= sizeMiB * MiB, "no block crosses twice");
    await finish();
  });

// Most of the first is waiting, for the silence to be noticed: the second runs meanwhile.
const bodies = [silence, cuts];
let running: Promise<void>[] | undefined;

async function outcome(which: () => Promise<void>): Promise<void> {
  running ??= bodies.map((body) => body());
  // What fails is told in its turn.
  for (const one of running) one.catch(() => {});
  await running[bodies.indexOf(which)];
}

withTgt("silent, then refusing, then back: reads of absent blocks wait, the rest goes on", async () => {
  await outcome(silence);
});

withTgt("connections cut in the midst of messages: each block comes over once, and is whole", async () => {
  await outcome(cuts);
});

test.run();
