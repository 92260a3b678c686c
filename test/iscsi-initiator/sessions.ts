/** Sessions with a scripted target, for the tests of reads and of targets that misbehave. */
import * as assert from "uvu/assert";
import { type InitiatorOptions, IscsiError, Session } from "../../src/iscsi-initiator/mod.ts";
import { fillBlocks, type Hook, isRead, ScriptedTarget } from "./scripted-target.ts";

export interface Seen {
  /** The states that the session went through, and the errors that led to them. */
  readonly states: string[];
  readonly errors: Error[];
}

/** Runs `body` with a target and an open session, and ends both. */
export async function withSession(
  options: Partial<InitiatorOptions>,
  body: (session: Session, target: ScriptedTarget, seen: Seen) => Promise<void>,
  setUp: (target: ScriptedTarget) => void = () => {},
): Promise<void> {
  const target = new ScriptedTarget();
  await target.start();
  setUp(target);
  const seen: Seen = { states: [], errors: [] };
  const session = new Session({
    ...target.options,
    onStateChange(state, error) {
      seen.states.push(state);
      if (error !== undefined) seen.errors.push(error);
    },
    ...options,
  });
  try {
    await session.open();
    await body(session, target, seen);
  } finally {
    await session.close();
    await target.stop();
  }
}

/** Reads and compares every byte. */
export async function checkRead(session: Session, lba: number, blocks: number): Promise<void> {
  const into = new Uint8Array(blocks * 512);
  const expected = new Uint8Array(blocks * 512);
  fillBlocks(expected, lba);
  await session.read(lba * 512, into);
  assert.ok(Buffer.compare(into, expected) === 0, `blocks from ${lba} on`);
}

/** What the promise rejects with, which must be an error of the initiator. */
export async function errorOf(promise: Promise<unknown>): Promise<IscsiError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, IscsiError);
    return error as IscsiError;
  }
  throw new Error("did not reject");
}

/** A hook for the first read only. */
export function onFirstRead(act: Hook): Hook {
  let isDone = false;
  return (request, peer) => {
    if (isDone || !isRead(request)) return false;
    isDone = true;
    act(request, peer);
    return true;
  };
}
