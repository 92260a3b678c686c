/** One SCSI command on its way: where its data goes, and whether what came is right. Pure. */
import { type IscsiError, ProtocolError, ScsiError, scsiStatus, TargetFailureError } from "./errors.ts";
import { type Header, opcodes, overflowFlag, underflowFlag } from "./pdu.ts";
import type { ScsiCommand } from "./scsi.ts";
import { parseSense } from "./sense.ts";

/**
 * What becomes of a task:
 *
 *     queued → on a connection → done (onDone called once)
 *        ↑          |
 *        └──────────┘  connection lost, or a passing condition: `restart`
 *
 * An abandoned task is done for its owner. While it is still on a connection it keeps its tag, because the
 * target may go on sending, but nothing is stored any more.
 */
export class Task {
  readonly command: ScsiCommand;
  /** Of `command.allocationBytes` bytes. */
  readonly into: Uint8Array;
  /** Every byte of `into` must be filled: a read of blocks. */
  readonly isExact: boolean;
  readonly onDone: (error: IscsiError | undefined) => void;
  isAbandoned = false;
  receivedBytes = 0;
  /** When the connection that it is on gives it up. */
  deadlineMs = 0;
  rejects = 0;
  /** How often it was sent again, by cause (retry.ts). */
  readonly retries = { attention: 0, busy: 0, failure: 0 };
  #nextDataSN = 0;

  constructor(
    command: ScsiCommand,
    into: Uint8Array,
    isExact: boolean,
    onDone: (error: IscsiError | undefined) => void,
  ) {
    this.command = command;
    this.into = into;
    this.isExact = isExact;
    this.onDone = onDone;
  }

  /** Forgets what was received; the command goes out afresh. */
  restart(): void {
    this.receivedBytes = 0;
    this.#nextDataSN = 0;
  }

  /**
   * Where the payload of this Data-In belongs. Data comes in ascending order without gaps, as negotiated
   * (DataPDUInOrder and DataSequenceInOrder), so that `receivedBytes` says what is filled.
   */
  place(header: Header): Uint8Array | "skip" {
    const { dataBytes, bufferOffset } = header;
    if (header.dataSN !== this.#nextDataSN || bufferOffset !== this.receivedBytes) {
      throw new ProtocolError(`the target sent data of ${this.command.name} out of order`);
    }
    const endBytes = bufferOffset + dataBytes;
    if (endBytes > this.into.length) {
      throw new ProtocolError(
        `the target sent more than the ${this.into.length} bytes that ${this.command.name} asked for`,
      );
    }
    this.#nextDataSN++;
    this.receivedBytes = endBytes;
    return this.isAbandoned ? "skip" : this.into.subarray(bufferOffset, endBytes);
  }

  /** What a final status makes of the task: undefined if it succeeded. `header` is a Data-In's or Response's. */
  outcome(header: Header, senseData: Uint8Array): IscsiError | undefined {
    // The response byte of a Data-In is reserved; that of a SCSI Response says whether there is a status.
    if (header.opcode === opcodes.scsiResponse && header.response !== 0) {
      return new TargetFailureError(
        `the target failed to carry out ${this.command.name} (response 0x${header.response.toString(16)})`,
      );
    }
    const { scsiStatus: status } = header;
    if (status !== scsiStatus.good) {
      const sense = status === scsiStatus.checkCondition ? parseSense(senseData) : undefined;
      return new ScsiError(this.command.name, status, sense);
    }
    const hasResidual = (header.flags & (overflowFlag | underflowFlag)) !== 0 && header.residualBytes > 0;
    if (this.isExact && (hasResidual || this.receivedBytes !== this.into.length)) {
      return new ProtocolError(
        `the target ended ${this.command.name} well, but sent ${this.receivedBytes} of ${this.into.length} bytes`,
      );
    }
    return undefined;
  }
}

/** The sense data in the data segment of a SCSI Response (RFC 7143 §11.4.7). */
export function senseDataOf(segment: Uint8Array): Uint8Array {
  if (segment.length < 2) return new Uint8Array();
  const senseBytes = segment[0] << 8 | segment[1];
  return segment.subarray(2, 2 + senseBytes);
}
