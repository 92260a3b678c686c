/** Copying dlsm to another host over a real ssh. */
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PreconditionError } from "../../src/lib/errors.ts";
import { remoteHost } from "../../src/role/mod.ts";
import { connect, deploy, deployedRoleCommand, SshFailedError } from "../../src/ssh/mod.ts";
import { kill } from "../helpers/dlsm.ts";
import { needing } from "../helpers/needs.ts";
import { until } from "../helpers/processes.ts";
import { rejection } from "../helpers/rejection.ts";
import { tempFolder } from "../helpers/temp.ts";
import { FarSide, programsOfFarSide, writeProgram } from "./far-side.ts";

const test = suite("deploy");
const withSsh = needing(test, [...programsOfFarSide, "gzip", "sha256sum"]);
const withFullDisk = needing(test, [...programsOfFarSide, "mount"], { root: true });

const program = join(tempFolder("p"), "dlsm");
/** Stands for the binary: of some size, so that it does not fit into one write. */
const padding = Array.from({ length: 60_000 }, (_, at) => `# ${(at * 2_654_435_761) % 4_294_967_296}`).join(
  "\n",
);
writeProgram(program, `echo "dlsm fake $1"; exit 0\n${padding}`);
const sha256 = createHash("sha256").update(readFileSync(program)).digest("hex");

let far: FarSide;
let bin: string;
let place: string;
test.before.each(async () => {
  far = await FarSide.start({ dlsm: null });
  bin = far.path("home/.cache/dlsm/bin");
  place = join(bin, `dlsm-${sha256.slice(0, 16)}`);
});
test.after.each(() => far.close());

const put = (path = program) => deploy("node", { program: path, isInteractive: false });
const refusal = async (path = program) => {
  const error = await rejection(put(path), PreconditionError);
  assert.is(error.exitCode, 3);
  assert.match(error.message, /^dlsm cannot be copied to node: /);
  assert.not.ok(existsSync(place), "something is in its place");
  if (existsSync(bin)) assert.equal(readdirSync(bin), [], "something is left");
  return error;
};
/** Takes the place of a program there. */
const fake = (name: string, script: string) => writeProgram(far.path(`bin/${name}`), script);

withSsh("it is copied once, whole, and can be run; the folder is the user's alone", async () => {
  let copies = 0;
  const options = { program, isInteractive: false, onCopying: () => copies++ };
  assert.equal(await deploy("node", options), { sha256, wasThere: false });
  assert.equal(readFileSync(place), readFileSync(program));
  assert.is(statSync(place).mode & 0o7777, 0o755);
  assert.is(statSync(bin).mode & 0o7777, 0o700);
  assert.equal(readdirSync(bin), [`dlsm-${sha256.slice(0, 16)}`]);
  const { ino } = statSync(place);
  assert.equal(await deploy("node", options), { sha256, wasThere: true });
  assert.is(statSync(place).ino, ino);
  assert.is(copies, 1);

  const ssh = connect("node", { command: deployedRoleCommand(sha256) }, { isInteractive: false });
  const said: string[] = [];
  ssh.stream.on("data", (chunk: Uint8Array) => said.push(new TextDecoder().decode(chunk)));
  assert.is((await ssh.ended).exitCode, 0);
  assert.is(said.join(""), "dlsm fake role\n");
});

withSsh("one that was damaged there is replaced", async () => {
  await put();
  writeFileSync(place, "damaged");
  assert.equal(await put(), { sha256, wasThere: false });
  assert.equal(readFileSync(place), readFileSync(program));
});

withSsh("two at once put the same thing there", async () => {
  await Promise.all([put(), put(), put()]);
  assert.equal(readFileSync(place), readFileSync(program));
  assert.is(readdirSync(bin).length, 1);
});

withSsh("a login script that talks does not disturb it", async () => {
  await far.close();
  far = await FarSide.start({
    dlsm: null,
    settings: [`ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"`],
  });
  assert.equal(await put(), { sha256, wasThere: false });
});

withSsh("another kind of machine is refused before anything is copied", async () => {
  fake("uname", "echo Linux riscv64");
  const { message, hint } = await refusal();
  assert.match(message, /made for Linux (x86_64|aarch64), and node is Linux riscv64/);
  assert.match(hint!, /riscv64/);
  assert.not.ok(existsSync(bin));
});

withSsh("a host without gzip or sha256sum is refused", async () => {
  for (const missing of ["gzip", "sha256sum"]) {
    await far.close();
    const path = tempFolder("path");
    for (const name of ["sh", "uname", "gzip", "sha256sum", "mktemp", "mkdir", "rm"]) {
      if (name !== missing) writeProgram(join(path, name), `exec /bin/${name} "$@"`);
    }
    far = await FarSide.start({ dlsm: null, env: { PATH: path } });
    assert.match((await refusal()).message, new RegExp(`there is no ${missing} on node`));
  }
});

withSsh("what arrives damaged is not used", async () => {
  fake("gzip", "exec head -c 1000");
  assert.match((await refusal()).message, /arrived damaged/);
});

withSsh("what does not start there is not used, and what it says is told", async () => {
  const broken = join(tempFolder("p"), "dlsm");
  writeProgram(broken, "echo libatomic.so.1: cannot open >&2; exit 127");
  const { message, hint } = await refusal(broken);
  assert.match(message, /does not start there \(libatomic\.so\.1: cannot open\)/);
  assert.match(hint!, /libatomic1/);
});

withSsh("a folder that cannot be made there is told", async () => {
  writeFileSync(far.path("home/.cache"), "");
  const { message } = await rejection(put(), PreconditionError);
  assert.match(message, /cannot be written there \(.*\.cache/);
});

withFullDisk("no space there is told, and nothing is left", async () => {
  mkdirSync(bin, { recursive: true });
  await execa("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", bin]);
  try {
    const { message, hint } = await refusal();
    assert.match(message, /No space left on device/);
    assert.match(hint!, /space/);
  } finally {
    await execa("umount", [bin]);
  }
});

withSsh("a connection that is lost half-way leaves nothing", async () => {
  const [begun, goOn] = [far.path("begun"), far.path("go-on")];
  fake("gzip", `touch ${begun}; while [ ! -e ${goOn} ]; do sleep 0.01; done; exec /bin/gzip "$@"`);
  far.client(`echo $$ >${far.path("pid")}; exec ${far.sshCommand} "$@"`);
  const lost = rejection(put(), SshFailedError);
  await until(() => existsSync(begun), "it is being copied");
  kill(Number(readFileSync(far.path("pid"), "utf8")), "SIGKILL");
  assert.match((await lost).message, /ssh to node was ended by SIGKILL/);
  writeFileSync(goOn, "");
  await until(() => readdirSync(bin).length === 0, "nothing is left");
});

withSsh("ssh that does not get there is told as such", async () => {
  far.know(["Port 1"]);
  const error = await rejection(put(), SshFailedError);
  assert.match(error.message, /node refuses/);
});

withSsh("one that nobody used for a week goes, unless it runs", async () => {
  mkdirSync(bin, { recursive: true });
  const weeksAgo = Date.now() / 1000 - 20 * 86_400;
  const older = (name: string, copyOf: string, age = weeksAgo) => {
    const path = join(bin, name);
    writeFileSync(path, readFileSync(copyOf));
    chmodSync(path, 0o755);
    utimesSync(path, age, age);
    return path;
  };
  const unused = older(`dlsm-${"a".repeat(16)}`, program);
  const recent = older(`dlsm-${"b".repeat(16)}`, program, Date.now() / 1000 - 3600);
  const running = older(`dlsm-${"c".repeat(16)}`, "/bin/sleep");
  const halfMade = older(".new.abcdefgh", program);
  const foreign = older("notes", program);
  const user = execa(running, ["100"], { reject: false });
  try {
    await put();
    assert.equal([unused, recent, running, halfMade, foreign].map((path) => existsSync(path)), [
      false,
      true,
      true,
      false,
      true,
    ]);
  } finally {
    user.kill();
    await user;
  }
});

withSsh("dlsm from its source cannot be copied", async () => {
  const error = await rejection(deploy("node", { isInteractive: false }), PreconditionError);
  assert.match(error.message, /runs from its source/);
  assert.match(error.hint!, /install\.sh/);
});

withSsh("a host may be asked to copy first: the same error, nothing changed", async () => {
  const host = remoteHost("node", { deploy: true, isInteractive: false });
  const error = await rejection(host.ask("host.describe", {}), PreconditionError);
  assert.match(error.message, /runs from its source/);
  await host.close();
  assert.not.ok(existsSync(bin));
});

const binary = join(import.meta.dirname!, "..", "..", "dist", "dlsm");
if (existsSync(binary)) {
  withSsh("the real binary is copied and starts there", async () => {
    const { sha256: hash, wasThere } = await put(binary);
    assert.not.ok(wasThere);
    const { stdout } = await execa(join(bin, `dlsm-${hash.slice(0, 16)}`), ["--version"]);
    assert.match(stdout, /^dlsm \d/);
  });
}

test.run();
