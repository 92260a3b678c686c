/** Every way in which ssh or the dlsm on the other host may not come up: one clear error, by a real ssh. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PreconditionError, UnreachableError } from "../../src/lib/errors.ts";
import { remoteHost, type RemoteHostOptions } from "../../src/role/mod.ts";
import { needing } from "../helpers/needs.ts";
import { rejection } from "../helpers/rejection.ts";
import { FarSide, freePort, oldDlsm, programsOfFarSide, thisTree, writeProgram } from "./far-side.ts";

const test = suite("ssh failures");
const withSsh = needing(test, programsOfFarSide);
const inNamespace = needing(test, [...programsOfFarSide, "unshare", "ip"], { root: true });

let far: FarSide;
test.before(async () => {
  const settings = ["PasswordAuthentication yes", "KbdInteractiveAuthentication yes"];
  far = await FarSide.start({ settings });
});
test.before.each(() => {
  far.know();
  writeProgram(far.path("bin/dlsm"), thisTree());
});
test.after(() => far.close());

/** The error of a host that was never reached: nothing was changed. */
async function failure(name = "node", options: RemoteHostOptions = {}): Promise<UnreachableError> {
  const logged: string[] = [];
  const host = remoteHost(name, { isInteractive: false, onLog: (line) => logged.push(line), ...options });
  try {
    const error = await rejection(host.ask("host.describe", {}), UnreachableError);
    assert.is(error.exitCode, 3, error.message);
    assert.is(error.host, name);
    assert.match(error.message, name.split("@").at(-1)!);
    assert.ok(error.hint, error.message);
    // What explains the error is not said a second time.
    assert.equal(logged, []);
    return error;
  } finally {
    await host.close();
  }
}

withSsh("a host key that is not known", async () => {
  writeFileSync(far.path("known_hosts"), "");
  const { message, hint } = await failure();
  assert.match(message, /host key of node is not known/);
  assert.match(hint!, /fingerprint/);
  assert.is(readFileSync(far.path("known_hosts"), "utf8"), "", "the key was taken over");
});

withSsh("a host key that has changed", async () => {
  const other = readFileSync(far.path("other_key.pub"), "utf8");
  writeFileSync(far.path("known_hosts"), `[127.0.0.1]:${far.port} ${other}`);
  assert.match((await failure()).message, /not the one that is known/);
});

withSsh("a key that is not accepted, where a password would be asked for", async () => {
  far.know([`IdentityFile ${far.path("other_key")}`, "PubkeyAuthentication no"]);
  assert.match((await failure()).message, /no terminal to ask for a password/);
});

withSsh("a user who does not exist", async () => {
  assert.match((await failure("nobody-at-all@node")).message, /may not log in/);
});

withSsh("a name that is not known", async () => {
  assert.match((await failure("no-such-host.invalid")).message, /cannot be resolved/);
});

withSsh("a port where nobody listens", async () => {
  far.know([`Port ${await freePort()}`]);
  assert.match((await failure()).message, /refuses the ssh connection .*Connection refused/);
});

withSsh("a port where nobody speaks", async () => {
  const mute = createServer();
  await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
  far.know([`Port ${(mute.address() as { port: number }).port}`, "ConnectTimeout 1"]);
  assert.match((await failure()).message, /does not answer .*timed out/);
  mute.close();
});

inNamespace("no route to it, and no network at all", async () => {
  const alone = (command: string) =>
    far.client(
      `exec unshare --net sh -c 'ip link set lo up; ${command}; exec "$0" "$@"' ${far.sshCommand} "$@"`,
    );
  alone("ip route add unreachable 192.0.2.0/24");
  assert.match((await failure("192.0.2.1")).message, /no route to 192\.0\.2\.1/);
  alone("true");
  assert.match((await failure("192.0.2.1")).message, /network of 192\.0\.2\.1 cannot be reached/);
});

withSsh("a configuration of ssh that is wrong", async () => {
  far.know(["Nonsense yes"]);
  assert.match((await failure()).message, /configuration .*nonsense/);
});

withSsh("a jump host that is not there", async () => {
  far.know(["Host node", "ProxyJump gate.invalid", "Host *"]);
  assert.match((await failure()).message, /cannot be resolved .*gate\.invalid/);
});

withSsh("no ssh here", async () => {
  const path = process.env.PATH;
  process.env.PATH = far.path("empty");
  // The folders of root are looked through as well, and have no ssh.
  const host = remoteHost("node");
  const error = await rejection(host.ask("host.describe", {}), PreconditionError);
  process.env.PATH = path;
  await host.close();
  assert.match(error.message, /no ssh on this host/);
});

withSsh("no dlsm there", async () => {
  const bare = await FarSide.start({ dlsm: null });
  try {
    const { message, hint } = await failure();
    assert.match(message, /dlsm cannot be run on node: .*not found/);
    assert.match(hint!, /--deploy/);
  } finally {
    await bare.close();
  }
});

withSsh("a dlsm there that has no role command", async () => {
  writeProgram(far.path("bin/dlsm"), `echo 'error: there is no command "role"' >&2; exit 2`);
  const { message, hint } = await failure();
  assert.match(message, /dlsm on node is too old/);
  assert.match(hint!, /same version/);
});

withSsh("a dlsm there of another version", async () => {
  writeProgram(far.path("bin/dlsm"), oldDlsm("9.8.7"));
  const { message, hint } = await failure();
  assert.match(message, /dlsm 9\.8\.7 is on node, and \d+\.\d+\.\d+.* here/);
  assert.match(hint!, /same version on node, or use --deploy/);
});

withSsh("a dlsm there of before versions were told", async () => {
  writeProgram(far.path("bin/dlsm"), `echo "dlsm-rpc 1 max-calls=32"; exec cat >/dev/null`);
  assert.match((await failure()).message, /unknown version is on node/);
});

withSsh("a state folder there that cannot be made: its error, with its advice", async () => {
  writeFileSync(far.path("file"), "");
  writeProgram(far.path("bin/dlsm"), `DLSM_STATE_DIR=${far.path("file/state")} ${thisTree()}`);
  const { message, hint } = await failure();
  assert.match(message, /dlsm on node ended with an error: the state folder .* cannot be made/);
  assert.match(hint!, /^on node: .*DLSM_STATE_DIR/);
});

withSsh("a state folder there that others can write", async () => {
  mkdirSync(far.path("open"));
  chmodSync(far.path("open"), 0o777);
  writeProgram(far.path("bin/dlsm"), `DLSM_STATE_DIR=${far.path("open")} ${thisTree()}`);
  assert.match((await failure()).message, /state folder .* is open to other users/);
});

withSsh("a login script that talks", async () => {
  writeProgram(far.path("bin/dlsm"), `echo "Welcome to node1!"; ${thisTree()}`);
  const { message, hint } = await failure();
  assert.match(message, /node: .*does not speak dlsm-rpc; it said "Welcome/);
  assert.match(hint!, /login script/);
});

withSsh("something else under the name of dlsm", async () => {
  writeProgram(far.path("bin/dlsm"), "echo what is this >&2; exit 5");
  assert.match((await failure()).message, /node: .*without a word \(what is this\)/);
});

withSsh("a dlsm there that says nothing", async () => {
  writeProgram(far.path("bin/dlsm"), "exec sleep 60");
  const { message } = await failure("node", { link: { handshakeTimeoutMs: 1000 } });
  assert.match(message, /node: .*said nothing for 1000 ms/);
});

test.run();
