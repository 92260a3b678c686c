/** The parts of a survey that read what the kernel says, with samples of it. */
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { folderFindings, goesAtLogout } from "../../src/role/survey/folders.ts";
import { moduleState } from "../../src/role/survey/kernel.ts";
import { systemPort } from "../../src/role/survey/ports.ts";
import { socketsOf } from "../../src/role/survey/processes.ts";
import { parseTcpTable } from "../../src/role/survey/tcp-table.ts";
import { tempFolder } from "../helpers/temp.ts";

const test = suite("survey: parts");

const head =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const line = (local: string, state: string, inode = "1504") =>
  `   0: ${local} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1 0 100`;

test("TCP tables: addresses of both families, states, inodes; lines that make no sense are left out", () => {
  const text = [
    head,
    line("0100007F:0CBC", "0A"),
    line("00000000:0CBC", "01", "7"),
    line("B80D0120000000000000000001000000:01BB", "06"),
    line("00000000000000000000000000000000:0CBC", "0A"),
    "   5: nonsense",
    line("0100007F00000000:0CBC", "0A"),
    "",
  ].join("\n");
  assert.equal(parseTcpTable(text), [
    { address: "127.0.0.1", port: 3260, state: "listening", inode: "1504" },
    { address: "0.0.0.0", port: 3260, state: "established", inode: "7" },
    { address: "2001:db8::1", port: 443, state: "other", inode: "1504" },
    { address: "::", port: 3260, state: "listening", inode: "1504" },
  ]);
  assert.equal(parseTcpTable(""), []);
});

test("a run folder of logind's goes at logout, unless its user lingers", () => {
  const lingering = tempFolder();
  const goes = (path: string) => goesAtLogout(path, { folders: "/run/user", lingering });
  assert.equal(["/run/user/1000/dlsm", "/run/dlsm", "/tmp/run/user/1000/dlsm"].map(goes), [
    true,
    false,
    false,
  ]);
  writeFileSync(join(lingering, userInfo().username), "");
  assert.is(goes("/run/user/1000/dlsm"), false);
});

test("a run folder that goes at logout is told, a state folder there and one of a user who lingers are not", () => {
  const [folders, lingering] = [tempFolder(), tempFolder()];
  const told = (name: string) =>
    folderFindings(
      { state: join(folders, "1000", "state"), run: join(folders, name) },
      { folders, lingering },
    ).filter(({ message }) => message.includes("logged out"));
  const [finding, ...others] = told("1000/dlsm");
  assert.equal(others, []);
  assert.equal([finding!.check, finding!.level], ["run-folder", "note"]);
  assert.match(finding!.message, join(folders, "1000/dlsm"));
  assert.match(finding!.remedy!, "loginctl enable-linger");
  assert.equal(told("elsewhere/dlsm"), []);
  writeFileSync(join(lingering, userInfo().username), "");
  assert.equal(told("1000/dlsm"), []);
});

test("a listener on every address at the port of iSCSI is told, others are not", () => {
  const at = (address: string, port = 3260) => ({ address, port, state: "listening", inode: "1" }) as const;
  assert.equal(systemPort([at("127.0.0.1"), at("0.0.0.0", 22)]), []);
  assert.equal(systemPort([{ ...at("0.0.0.0"), state: "established" }]), []);
  const [finding] = systemPort([at("0.0.0.0"), at("::")]);
  assert.is(finding!.level, "note");
  assert.match(finding!.message, "0.0.0.0:3260, [::]:3260");
  assert.match(finding!.remedy!, "systemctl disable --now tgt");
});

test("a process's own sockets, and no other's", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  const mine = socketsOf(process.pid)!.filter((socket) => socket.port === port);
  assert.equal(mine.map(({ address, state }) => [address, state]), [["127.0.0.1", "listening"]]);
  assert.equal(socketsOf(process.ppid)?.filter((socket) => socket.port === port), []);
  server.close();
  assert.is(socketsOf(2 ** 22 + 1), undefined, "no such process");
});

test("modules: built in, to be loaded (compressed or not, with - or _), or not there", () => {
  const root = tempFolder();
  mkdirSync(join(root, "6.1"));
  writeFileSync(join(root, "6.1", "modules.builtin"), "kernel/drivers/block/loop.ko\n");
  writeFileSync(
    join(root, "6.1", "modules.dep"),
    "kernel/drivers/block/nbd.ko.xz:\nkernel/drivers/md/dm-mod.ko: kernel/a/dax.ko\n",
  );
  const states = ["loop", "nbd", "dm_mod", "dax", "bd"].map((name) => moduleState(name, "6.1", root));
  assert.equal(states, ["there", "loadable", "loadable", "absent", "absent"]);
  assert.is(moduleState("nbd", "6.2", root), "absent");
});

test.run();
