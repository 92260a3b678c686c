/** Sequence numbers (RFC 7143 §4.2.2), compared as RFC 1982 serial numbers of 32 bits. Pure. */

/** Whether `a` comes before `b`. */
export function serialBefore(a: number, b: number): boolean {
  return (a - b | 0) < 0;
}

export function serialNext(a: number): number {
  return (a + 1) >>> 0;
}

/** How many commands the target takes now: CmdSN, ExpCmdSN and MaxCmdSN of one session. */
export class CommandWindow {
  #nextCmdSN: number;
  #maxCmdSN: number;
  #expCmdSN: number;

  /** Until the target says otherwise only the login itself fits. */
  constructor(initialCmdSN: number) {
    this.#nextCmdSN = initialCmdSN >>> 0;
    this.#expCmdSN = this.#nextCmdSN;
    this.#maxCmdSN = (initialCmdSN - 1) >>> 0;
  }

  /** The CmdSN of the next command; immediate commands carry it without using it up. */
  get nextCmdSN(): number {
    return this.#nextCmdSN;
  }

  get isOpen(): boolean {
    return !serialBefore(this.#maxCmdSN, this.#nextCmdSN);
  }

  take(): number {
    const taken = this.#nextCmdSN;
    this.#nextCmdSN = serialNext(taken);
    return taken;
  }

  /** Takes over what a PDU says; a pair that contradicts itself or is older changes nothing. */
  update(expCmdSN: number, maxCmdSN: number): void {
    if (serialBefore(maxCmdSN, (expCmdSN - 1) >>> 0)) return;
    if (serialBefore(this.#maxCmdSN, maxCmdSN)) this.#maxCmdSN = maxCmdSN;
    if (serialBefore(this.#expCmdSN, expCmdSN)) this.#expCmdSN = expCmdSN;
  }
}
