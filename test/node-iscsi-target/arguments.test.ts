import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as args from "../../src/node-iscsi-target/arguments.ts";

const test = suite("arguments");

const base = "-C 1 --lld iscsi";

test("portalText: IPv6 in brackets", () => {
  assert.is(args.portalText({ address: "10.0.0.5", port: 3260 }), "10.0.0.5:3260");
  assert.is(args.portalText({ address: "fe80::1", port: 0 }), "[fe80::1]:0");
});

test("daemonArguments: a loopback portal at first, pings, threads", () => {
  const argv = args.daemonArguments({ ioThreads: 4, nopIntervalSeconds: 5, nopCount: 3 });
  assert.is(argv.join(" "), "-f -C 1 -t 4 --iscsi portal=127.0.0.1:0,nop_interval=5,nop_count=3");
});

test("tgtadm's arguments", () => {
  const portal = { address: "::1", port: 3260 };
  const lun = { tid: 2, lun: 1, path: "disks/2", blockBytes: 4096 };
  const expected: [string[], string][] = [
    [args.showSystem(), "--op show --mode sys"],
    [args.deleteSystem(), "--op delete --mode system"],
    [args.showPortals(), "--op show --mode portal"],
    [args.newPortal(portal), "--op new --mode portal --param portal=[::1]:3260"],
    [args.deletePortal(portal), "--op delete --mode portal --param portal=[::1]:3260"],
    [args.showTargets(), "--op show --mode target"],
    [args.newTarget(2, "iqn.x"), "--op new --mode target --tid 2 --targetname iqn.x"],
    [args.deleteTarget(2, false), "--op delete --mode target --tid 2"],
    [args.deleteTarget(2, true), "--op delete --mode target --tid 2 --force"],
    [
      args.updateTarget(2, "HeaderDigest", "CRC32C"),
      "--op update --mode target --tid 2 --name HeaderDigest --value CRC32C",
    ],
    [args.allowAddress(2, "10.0.0.5"), "--op bind --mode target --tid 2 --initiator-address 10.0.0.5"],
    [args.denyAddress(2, "10.0.0.5"), "--op unbind --mode target --tid 2 --initiator-address 10.0.0.5"],
    [
      args.newLun({ ...lun, direct: false }),
      "--op new --mode logicalunit --tid 2 --lun 1 --backing-store disks/2 --bstype rdwr --blocksize 4096",
    ],
    [
      args.newLun({ ...lun, direct: true }),
      "--op new --mode logicalunit --tid 2 --lun 1 --backing-store disks/2 --bstype rdwr --blocksize 4096" +
      " --bsoflags direct",
    ],
    [
      args.protectLun(2, 1, "s-1"),
      "--op update --mode logicalunit --tid 2 --lun 1 --params readonly=1,scsi_id=s-1,scsi_sn=s-1",
    ],
    [args.deleteLun(2, 1), "--op delete --mode logicalunit --tid 2 --lun 1"],
    [args.showAccounts(), "--op show --mode account"],
    [args.bindAccount(2, "u", "incoming"), "--op bind --mode account --tid 2 --user u"],
    [args.bindAccount(2, "u", "outgoing"), "--op bind --mode account --tid 2 --user u --outgoing"],
    [args.deleteAccount("u"), "--op delete --mode account --user u"],
    [args.showConnections(2), "--op show --mode conn --tid 2"],
    [args.deleteConnection(2, 7, 0), "--op delete --mode conn --tid 2 --sid 7 --cid 0"],
    [args.targetStatistics(2), "--op stat --mode target --tid 2"],
  ];
  for (const [argv, text] of expected) assert.is(argv.join(" "), `${base} ${text}`);
});

test.run();
