/**
 * Parsers of what `tgtadm --op show` and `--op stat` print. Pure.
 *
 * tgtd prints names that peers chose (an initiator's name may hold newlines), so unknown lines are skipped
 * rather than refused; where safety hangs on the answer (portals) they are refused.
 */
import { quoted } from "../lib/quoted.ts";
import { TgtError } from "./errors.ts";
import type {
  BoundAccount,
  Connection,
  Lun,
  LunStatistics,
  Portal,
  SystemState,
  Target,
  Traffic,
} from "./types.ts";

function badReply(what: string, line: string): TgtError {
  return new TgtError("badReply", `tgtadm: cannot understand ${what}: ${quoted(line)}`);
}

/** A decimal number that tgtd printed; refused where it is none, or more than 2^53 - 1. */
function count(text: string, what: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw badReply(what, text);
  return value;
}

const linesOf = (text: string) => text.split("\n").filter((line) => line.trim() !== "");
const indentOf = (line: string) => line.length - line.trimStart().length;

/** `Key: value`; the key is "" where there is none. */
function keyAndValue(line: string): [string, string] {
  const at = line.indexOf(":");
  return at < 0 ? ["", line.trim()] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}

/** `show --mode sys` */
export function parseSystem(text: string): SystemState {
  const drivers = new Map<string, string>();
  let state = "";
  let section = "";
  for (const line of linesOf(text)) {
    const [key, value] = keyAndValue(line);
    if (indentOf(line) === 0) section = key;
    else if (section === "System" && key === "State") state = value;
    else if (section === "LLDs") drivers.set(key, value);
  }
  if (state === "") throw badReply("the state of the system", text);
  return { state, drivers };
}

/** `show --mode portal`: `Portal: 127.0.0.1:3260,1`, `Portal: [::1]:3260,1` */
export function parsePortals(text: string): Portal[] {
  return linesOf(text).map((line) => {
    const match = /^Portal: (?:\[([\w:.%-]+)\]|([\w.-]+)):(\d{1,5}),\d+$/.exec(line);
    if (match === null) throw badReply("a portal", line);
    return { address: (match[1] ?? match[2])!, port: count(match[3]!, "a port") };
  });
}

/** True if the portal listens on every address. */
export function isWildcard(portal: Portal): boolean {
  return !/[1-9a-f]/i.test(portal.address);
}

/** `show --mode account` */
export function parseAccounts(text: string): string[] {
  return linesOf(text).filter((line) => indentOf(line) > 0).map((line) => line.trim());
}

/** `show --mode conn` */
export function parseConnections(text: string): Connection[] {
  const connections: { sid: number; cid: number; initiator: string; address: string }[] = [];
  let sid = 0;
  for (const line of linesOf(text)) {
    const [key, value] = keyAndValue(line);
    const indent = indentOf(line);
    if (indent === 0 && key === "Session") sid = count(value, "a session id");
    else if (indent === 4 && key === "Connection") {
      connections.push({ sid, cid: count(value, "a connection id"), initiator: "", address: "" });
    } else if (indent === 8 && key === "Initiator" && connections.length > 0) {
      connections.at(-1)!.initiator = value;
    } else if (indent === 8 && key === "IP Address" && connections.length > 0) {
      connections.at(-1)!.address = value;
    }
  }
  return connections;
}

interface Draft {
  target: {
    tid: number;
    name: string;
    state: string;
    nopIntervalSeconds: number;
    nopCount: number;
    luns: Lun[];
    accounts: BoundAccount[];
    allowed: string[];
  };
  /** The attributes of the LUN that is being read. */
  lun: Map<string, string> | undefined;
}

/** `show --mode target`: sections at indent 4, their entries at 8, a LUN's attributes at 12. */
export function parseTargets(text: string): Target[] {
  const targets: Target[] = [];
  let draft: Draft | undefined;
  let section = "";
  for (const line of linesOf(text)) {
    const header = /^Target (\d+): (.*)$/.exec(line);
    if (header !== null) {
      finishLun(draft);
      draft = newDraft(count(header[1]!, "a target id"), header[2]!.trim());
      targets.push(draft.target);
      section = "";
    } else if (draft !== undefined && indentOf(line) === 4) {
      finishLun(draft);
      section = line.trim();
    } else if (draft !== undefined) {
      readEntry(draft, section, line);
    }
  }
  finishLun(draft);
  return targets;
}

function newDraft(tid: number, name: string): Draft {
  const target = {
    tid,
    name,
    state: "",
    nopIntervalSeconds: 0,
    nopCount: 0,
    luns: [],
    accounts: [],
    allowed: [],
  };
  return { target, lun: undefined };
}

function readEntry(draft: Draft, section: string, line: string): void {
  const { target } = draft;
  const [key, value] = keyAndValue(line);
  const indent = indentOf(line);
  if (section === "System information:" && indent === 8) {
    if (key === "State") target.state = value;
    else if (key === "Nop interval") target.nopIntervalSeconds = count(value, "the NOP interval");
    else if (key === "Nop count") target.nopCount = count(value, "the NOP count");
  } else if (section === "LUN information:" && indent === 8 && key === "LUN") {
    finishLun(draft);
    draft.lun = new Map([["LUN", value]]);
  } else if (section === "LUN information:" && indent === 12) {
    draft.lun?.set(key, value);
  } else if (section === "Account information:" && indent === 8) {
    const user = line.trim();
    target.accounts.push(
      user.endsWith(" (outgoing)")
        ? { user: user.slice(0, -" (outgoing)".length), direction: "outgoing" }
        : { user, direction: "incoming" },
    );
  } else if (section === "ACL information:" && indent === 8) {
    target.allowed.push(line.trim());
  }
}

function finishLun(draft: Draft | undefined): void {
  const read = draft?.lun;
  if (draft === undefined || read === undefined) return;
  const text = (key: string) => read.get(key) ?? "";
  const blockBytes = /Block size: (\d+)$/.exec(text("Size"))?.[1];
  if (blockBytes === undefined) throw badReply("a LUN's block size", text("Size"));
  draft.target.luns.push({
    lun: count(text("LUN"), "a LUN"),
    type: text("Type"),
    scsiId: text("SCSI ID"),
    serial: text("SCSI SN"),
    blockBytes: count(blockBytes, "a LUN's block size"),
    online: text("Online") === "Yes",
    readOnly: text("Readonly") === "Yes",
    backingType: text("Backing store type"),
    backingPath: text("Backing store path"),
    backingFlags: text("Backing store flags").split(/[:\s]+/).filter((flag) => flag !== ""),
  });
  draft.lun = undefined;
}

const statisticsHeader = /^tgt lun sid rd_subm\(bytes,cmds\) rd_done\(bytes,cmds\)/;

/** `stat --mode target` or `lu`: a header, then one row of 12 numbers for each LUN and session. */
export function parseStatistics(text: string): LunStatistics[] {
  const [header, ...rows] = linesOf(text);
  if (header === undefined || !statisticsHeader.test(header)) throw badReply("the statistics", header ?? "");
  return rows.map((row) => {
    const fields = row.trim().split(/\s+/);
    if (fields.length !== 12) throw badReply("a row of the statistics", row);
    const values = fields.map((field) => count(field, "the statistics"));
    const [tid, lun, sid] = values as [number, number, number];
    return { tid, lun, sid, read: traffic(values, 3), write: traffic(values, 7), errors: values[11]! };
  });
}

function traffic(values: readonly number[], at: number): Traffic {
  return {
    submittedBytes: values[at]!,
    submittedCommands: values[at + 1]!,
    doneBytes: values[at + 2]!,
    doneCommands: values[at + 3]!,
  };
}
