import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as check from "../../src/node-iscsi-target/check.ts";
import { isTgtError } from "../../src/node-iscsi-target/errors.ts";

const test = suite("check");

const refused = (error: unknown) => isTgtError(error, "invalidArgument");
const secret = "0123456789ab";

test("checkTargetName", () => {
  check.checkTargetName("iqn.2024-01.org.example:disk-1.a");
  check.checkTargetName(`iqn.2024-01.x:${"a".repeat(209)}`);
  const bad = [
    "",
    "iqn.2024-01.",
    "iqn.2024-01.X",
    "disk",
    "iqn.2024-01.a,b",
    "iqn.2024-01.a b",
    "iqn.2024-01.a\nb",
  ];
  for (const name of [...bad, `iqn.2024-01.x:${"a".repeat(210)}`]) {
    assert.throws(() => check.checkTargetName(name), refused, name);
  }
});

test("checkSerial: longer ones would be cut off", () => {
  check.checkSerial("a".repeat(36));
  for (const serial of ["", "a".repeat(37), "a,b", "a b", "ä", "a\n"]) {
    assert.throws(() => check.checkSerial(serial), refused, serial);
  }
});

test("checkChap: users, secrets, and that both differ", () => {
  check.checkChap({ incoming: { user: "u", secret: `${secret}, with = and comma` } });
  check.checkChap({ incoming: { user: "u", secret }, outgoing: { user: "v", secret: `${secret}c` } });
  const incoming = { user: "u", secret };
  const bad = [
    { incoming: { user: "a,b", secret } },
    { incoming: { user: "", secret } },
    { incoming: { user: "u (outgoing)", secret } },
    { incoming: { user: "u", secret: "01234567890" } },
    { incoming: { user: "u", secret: `${secret}\0` } },
    { incoming: { user: "u", secret: `${secret}\n` } },
    { incoming: { user: "u", secret: "x".repeat(129) } },
    { incoming, outgoing: { user: "v", secret } },
    { incoming, outgoing: { user: "u", secret: `${secret}c` } },
  ];
  for (const chap of bad) assert.throws(() => check.checkChap(chap), refused, JSON.stringify(chap));
});

test("checkChap: the message does not hold the secret", () => {
  const bad = "tiny-secret\t";
  try {
    check.checkChap({ incoming: { user: "u", secret: bad } });
    assert.unreachable();
  } catch (error) {
    assert.not.match((error as Error).message, "tiny-secret");
  }
});

test("checkAllowed: one host's literal address", () => {
  assert.equal(check.checkAllowed("10.0.0.5"), { address: "10.0.0.5", family: 4 });
  assert.equal(check.checkAllowed("2001:DB8::5"), { address: "2001:DB8::5", family: 6 });
  assert.equal(check.checkAllowed("fe80::1%eth0"), { address: "fe80::1", family: 6 });
  const bad = [
    "",
    "ALL",
    "garbage",
    "10.0.0.5/32",
    "10.0.0.0/24",
    "::1/128",
    "0.0.0.0",
    "::",
    "0:0::0",
    "[::1]",
  ];
  const more = [
    "10.0.0",
    "10.0.0.256",
    "010.0.0.1",
    "::ffff:10.0.0.5",
    "::ffff:a00:5",
    "10.0.0.5 ",
    "1::2::3",
  ];
  for (const allow of [...bad, ...more]) assert.throws(() => check.checkAllowed(allow), refused, allow);
});

test("checkPortal: never all addresses", () => {
  check.checkPortal({ address: "127.0.0.1", port: 0 });
  check.checkPortal({ address: "fe80::1%eth0", port: 65535 });
  const addresses = ["0.0.0.0", "::", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "localhost", "", "*", "[::1]"];
  for (const address of addresses) {
    assert.throws(() => check.checkPortal({ address, port: 3260 }), refused, address);
  }
  for (const port of [-1, 65536, 1.5, NaN]) {
    assert.throws(() => check.checkPortal({ address: "127.0.0.1", port }), refused, String(port));
  }
});

test("checkCount, checkSocketPath", () => {
  check.checkCount("threads", 1, 1, 128);
  for (const count of [0, 129, 1.5, NaN]) {
    assert.throws(() => check.checkCount("threads", count, 1, 128), refused);
  }
  check.checkSocketPath(`/${"a".repeat(106)}`);
  assert.throws(() => check.checkSocketPath(`/${"a".repeat(107)}`), refused);
  assert.throws(() => check.checkSocketPath(`/${"ä".repeat(54)}`), refused);
});

test.run();
