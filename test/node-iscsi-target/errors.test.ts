import fc from "fast-check";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  errorFromNumber,
  errorFromTgtadm,
  isTgtError,
  TgtError,
  type TgtReason,
  withLog,
} from "../../src/node-iscsi-target/errors.ts";

const test = suite("errors");

/** Exit codes and stderr as recorded from tgtadm 1.0.85. */
const recorded: [number, string, TgtReason | undefined][] = [
  [0, "", undefined],
  [22, "tgtadm: can't find the target\n", "noTarget"],
  [22, "tgtadm: can't find the logical unit\n", "noLun"],
  [22, "tgtadm: can't find the session\n", "noSession"],
  [22, "tgtadm: can't find the account\n", "noUser"],
  [22, "tgtadm: this target already exists\n", "targetExists"],
  [22, "tgtadm: this logical unit number already exists\n", "lunExists"],
  [22, "tgtadm: this account already exists\n", "userExists"],
  [22, "tgtadm: this access control rule already exists\n", "bindingExists"],
  [22, "tgtadm: this access control rule does not exist\n", "noBinding"],
  [22, "tgtadm: this target is still active\n", "targetActive"],
  [22, "tgtadm: this logical unit is still active\n", "lunActive"],
  [22, "tgtadm: invalid request\n", "invalidRequest"],
  [1, "tgtadm: unknown operation: frob\n", "invalidRequest"],
  [
    107,
    "tgtadm: failed to send request hdr to tgt daemon, Transport endpoint is not connected\n",
    "noDaemon",
  ],
  [104, "tgtadm: can't get the response, Connection reset by peer\n", "noDaemon"],
];

test("errorFromTgtadm: by exit code and text", () => {
  for (const [exitCode, stderr, reason] of recorded) {
    assert.is(errorFromTgtadm(exitCode, stderr, "do it")?.reason, reason, stderr);
  }
  assert.is(
    errorFromTgtadm(22, "tgtadm: invalid request\n", "make LUN 1")?.message,
    "make LUN 1: invalid request",
  );
});

test("errorFromTgtadm: a lost answer is no success, although tgtadm exits 0", () => {
  assert.is(errorFromTgtadm(0, "tgtadm: tgtd closed the socket\n", "do it")?.reason, "noDaemon");
  assert.is(errorFromTgtadm(0, "tgtadm: a partial response\n", "do it")?.reason, "noDaemon");
});

test("errorFromNumber: as tgtadm would say it", () => {
  assert.is(errorFromNumber(14, "make account u").reason, "userExists");
  assert.is(errorFromNumber(14, "make account u").message, "make account u: this account already exists");
  assert.is(errorFromNumber(99, "do it").reason, "invalidRequest");
});

test("withLog: the cause behind an invalid request", () => {
  const cause = (line: string) => withLog(new TgtError("invalidRequest", "do it: invalid request"), line);
  const bind = "tgtd: iscsi_tcp_init_portal(351) unable to bind server socket,";
  assert.is(cause(`${bind} Address already in use\n`).reason, "portInUse");
  assert.is(cause(`${bind} Cannot assign requested address\n`).reason, "addressNotAvailable");
  assert.is(cause(`${bind} Permission denied\n`).reason, "permission");
  const open = cause(
    "tgtd: bs_thread_open(409) 4\ntgtd: backed_file_open(92) Could not open disks/1, Is a directory\n",
  );
  assert.is(open.reason, "invalidRequest");
  assert.is(open.message, "do it: invalid request (Could not open disks/1, Is a directory)");
  assert.is(cause("").message, "do it: invalid request");
  const other = new TgtError("noTarget", "do it");
  assert.is(withLog(other, `${bind} Address already in use\n`), other);
});

test("errorFromTgtadm: any text gives an error", () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 255 }), fc.string(), (exitCode, text) => {
    const error = errorFromTgtadm(exitCode, text, "do it");
    assert.ok(isTgtError(error));
    assert.ok(isTgtError(withLog(error, text)));
  }));
});

test.run();
