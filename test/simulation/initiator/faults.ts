/**
 * What the simulated target does with a read: an answer as PDUs that are sent one by one, each built at the
 * moment it leaves. Every way to answer but `right` breaks a rule, or ends the command badly.
 */
import { fixedSense } from "../../iscsi-initiator/target-disk.ts";
import { bytesOf, type Field, lbaOf, type Peer, type Request } from "../../iscsi-initiator/target-peer.ts";
import type { Random } from "../../engine/memory.ts";

/** Builds what is sent next. */
export type Step = () => Uint8Array;

/**
 * What an initiator may make of an answer: `data`: nothing but the data; `again`: it may ask again a few times
 * and then fail; `failed`: the read has failed; `lost`: the connection cannot be used any more.
 */
export type Verdict = "data" | "again" | "failed" | "lost";

export interface Answer {
  readonly steps: Step[];
  readonly verdict: Verdict;
}

interface Context {
  readonly peer: Peer;
  readonly request: Request;
  readonly random: Random;
}

type Way = (context: Context) => Answer;

const underflow = 0x02;
const overflow = 0x04;
const statusInData = 0x01;

function rightData({ peer, request }: Context): Uint8Array {
  const data = new Uint8Array(request.expectedBytes);
  peer.disk.fill(data, lbaOf(request));
  return data;
}

/** What must never be taken for the block: a fill byte, or what another block holds. */
function garbage({ peer, request, random }: Context): Uint8Array {
  const data = new Uint8Array(request.expectedBytes);
  if (random.chance(0.5)) return data.fill(0xee);
  peer.disk.fill(data, random.below(peer.disk.blocks - data.length / 512));
  return data;
}

/** `data` as Data-In PDUs of any sizes, empty ones among them; `last` goes into the last of them. */
function pieces({ peer, request, random }: Context, data: Uint8Array, last?: () => Field[]): Step[] {
  const bound = random.chance(0.3) ? 700 : 70_000;
  const steps: Step[] = [];
  for (let at = 0; at < data.length;) {
    const piece = data.subarray(at, at + (random.chance(0.05) ? 0 : 1 + random.below(bound)));
    const [offset, dataSN] = [at, steps.length];
    at += piece.length;
    const isLast = at === data.length;
    steps.push(() =>
      peer.dataIn(request.tag, offset, dataSN, piece, isLast && last !== undefined ? last() : [])
    );
  }
  return steps;
}

function status({ peer, request }: Context, code: number, sense?: Uint8Array, extra: Field[] = []): Step {
  return () => peer.response(request.tag, code, sense, extra);
}

function residual(flag: number, bytes: number): Field[] {
  return [[1, 1, 0x80 | flag], [44, 4, bytes]];
}

const right: Way = (context) => {
  const { peer, random } = context;
  const data = rightData(context);
  if (random.chance(0.5)) {
    const last = (): Field[] => [[1, 1, 0x80 | statusInData], [24, 4, peer.takeStatSN()]];
    return { verdict: "data", steps: pieces(context, data, last) };
  }
  return { verdict: "data", steps: [...pieces(context, data), status(context, 0)] };
};

/** Some of it, or all, as garbage. */
function someGarbage(context: Context): Step[] {
  const data = garbage(context);
  const steps = pieces(context, data);
  return steps.slice(0, context.random.below(steps.length + 1));
}

function endsWith(verdict: Verdict, code: number, sense?: Uint8Array, extra?: Field[]): Way {
  return (context) => ({
    verdict,
    steps: [...someGarbage(context), status(context, code, sense, extra)],
  });
}

/** The garbage comes, and the connection cannot be followed afterwards. */
function loses(bad: (context: Context) => Uint8Array): Way {
  return (context) => ({ verdict: "lost", steps: [...someGarbage(context), () => bad(context)] });
}

export const ways: Readonly<Record<string, Way>> = {
  "medium error after garbage": endsWith("failed", 2, fixedSense(3, 0x11, 0)),
  "check condition without sense": endsWith("failed", 2),
  "reservation conflict after garbage": endsWith("failed", 0x18),
  "busy after garbage": endsWith("again", 8),
  "task set full": endsWith("again", 0x28),
  "unit attention after garbage": endsWith("again", 2, fixedSense(6, 0x29, 0)),
  "aborted command after garbage": endsWith("again", 2, fixedSense(0xb, 0x47, 0)),
  "recovered error": endsWith("again", 2, fixedSense(1, 0x17, 0)),
  "target failure after garbage": endsWith("again", 0, undefined, [[2, 1, 1]]),
  "GOOD before all data": (context) => {
    const steps = pieces(context, rightData(context));
    return { verdict: "failed", steps: [...steps.slice(0, -1), status(context, 0)] };
  },
  "GOOD with a garbage tail and its residual": (context) => {
    const data = rightData(context);
    const tail = 1 + context.random.below(data.length);
    data.fill(0xee, data.length - tail);
    return {
      verdict: "failed",
      steps: [...pieces(context, data), status(context, 0, undefined, residual(underflow, tail))],
    };
  },
  "GOOD in the last data, with a garbage tail and its residual": (context) => {
    const data = rightData(context);
    const tail = 1 + context.random.below(data.length);
    data.fill(0xee, data.length - tail);
    const last = (): Field[] => [
      ...residual(underflow | statusInData, tail),
      [24, 4, context.peer.takeStatSN()],
    ];
    return { verdict: "failed", steps: pieces(context, data, last) };
  },
  "GOOD with an overflow": (context) => ({
    verdict: "failed",
    steps: [...pieces(context, rightData(context)), status(context, 0, undefined, residual(overflow, 512))],
  }),
  "status twice": (context) => {
    const answer = right(context);
    return { verdict: "lost", steps: [...answer.steps, status(context, 0)] };
  },
  "garbage after GOOD": (context) => {
    const tag = context.request.tag;
    const more = () => context.peer.dataIn(tag, 0, 0, new Uint8Array(512).fill(0xee));
    return { verdict: "lost", steps: [...right(context).steps, more] };
  },
  "data at another offset": loses(({ peer, request, random }) =>
    peer.dataIn(request.tag, 1 + random.below(2 ** 31), random.below(4), new Uint8Array(512).fill(0xee))
  ),
  "too much data": loses(({ peer, request }) =>
    peer.dataIn(request.tag, 0, 0, new Uint8Array(request.expectedBytes + 4).fill(0xee))
  ),
  "data for no command": loses(({ peer }) => peer.dataIn(0x7fffffff, 0, 0, new Uint8Array(512))),
  "skipped StatSN": loses(({ peer, request }) => {
    peer.takeStatSN();
    return peer.response(request.tag);
  }),
  "reject": loses(({ peer, request }) => peer.reject(9, bytesOf(request))),
  "drop announced": loses(({ peer }) => peer.asyncMessage(2)),
  "logout asked for": loses(({ peer }) => peer.asyncMessage(1)),
  "not iSCSI": loses(({ random }) => random.bytes(600)),
};

/** One answer: right, or in one of the ways above. */
export function answerRead(context: Context, way: string | undefined): Answer {
  return way === undefined ? right(context) : ways[way](context);
}
