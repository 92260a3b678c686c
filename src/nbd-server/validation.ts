/** Is a request one that may be executed? Pure, and decided before anything of it is (NBD proto.md). */
import { command, commandFlag, maxPayloadBytes } from "./protocol.ts";
import type { Request } from "./request-decoder.ts";
import { nbdError } from "./wire-errors.ts";

/** Why a request is refused: an NBD error value, and a sentence for whoever reads the client's log. */
export interface Refusal {
  readonly error: number;
  readonly message: string;
}

type Judged = Pick<Request, "type" | "flags" | "offset" | "length">;

/** What of the session a request is judged by. */
export interface RequestRules {
  readonly sizeBytes: number;
  readonly structuredReplies: boolean;
  /** How many meta contexts the client selected. */
  readonly metaContextCount: number;
}

/** FUA goes with every command: a server that offers it must accept it even where it means nothing. */
const allowedFlags = new Map<number, number>([
  [command.read, commandFlag.fua | commandFlag.df],
  [command.write, commandFlag.fua],
  [command.flush, commandFlag.fua],
  [command.trim, commandFlag.fua],
  [command.cache, commandFlag.fua],
  [command.writeZeroes, commandFlag.fua | commandFlag.noHole | commandFlag.fastZero],
  [command.blockStatus, commandFlag.fua | commandFlag.reqOne],
]);

/** Undefined if `request` may be executed. NBD_CMD_DISC is not a request in this sense. */
export function refusalOf(request: Judged, rules: RequestRules): Refusal | undefined {
  const { type, flags, offset, length } = request;
  const allowed = allowedFlags.get(type);
  if (allowed === undefined) return invalid(`unknown command ${type}`);
  const unknown = flags & ~allowed;
  if (unknown !== 0) return invalid(`command ${type} has no flags 0x${unknown.toString(16)}`);
  switch (type) {
    case command.flush:
      return offset === 0 && length === 0 ? undefined : invalid("a flush has neither offset nor length");
    case command.read:
      if ((flags & commandFlag.df) !== 0 && !rules.structuredReplies) {
        return invalid("the DF flag needs structured replies");
      }
      // The protocol has EOVERFLOW for reads only where DF exists, that is with structured replies.
      if (length > maxPayloadBytes) return tooLong(length, rules.structuredReplies);
      break;
    case command.write:
      if (length > maxPayloadBytes) return tooLong(length, false);
      break;
    case command.cache:
      if (length > maxPayloadBytes) return tooLong(length, true);
      break;
    case command.blockStatus:
      if (rules.metaContextCount === 0) return invalid("no metadata context was selected");
      if (length === 0) return invalid("block status of nothing");
      break;
  }
  if (offset + length > rules.sizeBytes) {
    const isWrite = type === command.write || type === command.writeZeroes;
    return {
      error: isWrite ? nbdError.ENOSPC : nbdError.EINVAL,
      message: `${length} bytes at ${offset} reach past the end of the disk (${rules.sizeBytes} bytes)`,
    };
  }
  return undefined;
}

function invalid(message: string): Refusal {
  return { error: nbdError.EINVAL, message };
}

function tooLong(length: number, asOverflow: boolean): Refusal {
  return {
    error: asOverflow ? nbdError.EOVERFLOW : nbdError.EINVAL,
    message: `a request of ${length} bytes is longer than the maximum of ${maxPayloadBytes}`,
  };
}
