/** One iSCSI session with one LUN: connects, reads, reconnects. */
import type { Identity, InitiatorOptions, SessionState } from "./options.ts";
import type { Statistics } from "./statistics.ts";
import type { InquiryData, LbaExtent } from "./scsi.ts";

const notYet = () => Promise.reject(new Error("not there yet"));

export class Session {
  constructor(_options: InitiatorOptions) {}
  open(): Promise<void> {
    return notYet();
  }
  get state(): SessionState {
    return "closed";
  }
  get identity(): Identity {
    throw new Error("not there yet");
  }
  get statistics(): Readonly<Statistics> {
    throw new Error("not there yet");
  }
  read(_offsetBytes: number, _into: Uint8Array, _options: { signal?: AbortSignal } = {}): Promise<void> {
    return notYet();
  }
  lbaStatus(_offsetBytes: number, _allocationBytes = 1 << 20): Promise<LbaExtent[]> {
    return notYet();
  }
  inquiry(): Promise<InquiryData> {
    return notYet();
  }
  reportLuns(): Promise<number[]> {
    return notYet();
  }
  testUnitReady(): Promise<void> {
    return notYet();
  }
  close(): Promise<void> {
    return notYet();
  }
}
