/** Breaks to plant into a copy of the initiator, each of which the simulation has to find. */

import type { Edit } from "../mutants/plant.ts";

export const breaks: Readonly<Record<string, readonly Edit[]>> = {
  "a read is answered when its data is there, before GOOD": [{
    file: "connection.ts",
    from: "if ((header.flags & statusFlag) !== 0) this.#onStatus(header, noData);",
    to: `if ((header.flags & statusFlag) !== 0) this.#onStatus(header, noData);
        else if (this.#taskOf(header).receivedBytes === this.#taskOf(header).into.length) {
          const early = this.#taskOf(header);
          if (early.isExact && !early.isAbandoned) { early.isAbandoned = true; early.onDone(undefined); }
        }`,
  }],
  "a status other than GOOD does not count once all data is there": [{
    file: "task.ts",
    from: "if (status !== scsiStatus.good) {",
    to: "if (status !== scsiStatus.good && this.receivedBytes !== this.into.length) {",
  }],
  "the pieces of a read are addressed by how many are under way": [{
    file: "read-request.ts",
    from: "const lba = (this.#offsetBytes + fromBytes) / blockBytes;",
    to: "const lba = this.#offsetBytes / blockBytes + this.#pieces.size * maxTransferBlocks;",
  }],
  "a piece of a read goes where the one before it belongs": [{
    file: "read-request.ts",
    from: "this.#into.subarray(fromBytes, fromBytes + lengthBytes)",
    to:
      "this.#into.subarray(Math.max(0, fromBytes - blockBytes), Math.max(0, fromBytes - blockBytes) + lengthBytes)",
  }],
  "a read that is issued again goes on where its old connection was lost": [
    {
      file: "task.ts",
      from: "this.receivedBytes = 0;\n    this.#nextDataSN = 0;",
      to: "this.#nextDataSN = 0;",
    },
    { file: "task.ts", from: " || bufferOffset !== this.receivedBytes", to: "" },
    {
      file: "task.ts",
      from: "const endBytes = bufferOffset + dataBytes;",
      to: "const endBytes = Math.min(this.into.length, this.receivedBytes + dataBytes);",
    },
    {
      file: "task.ts",
      from: "this.into.subarray(bufferOffset, endBytes)",
      to: "this.into.subarray(endBytes - dataBytes, endBytes)",
    },
  ],
  "the residual is ignored": [{
    file: "task.ts",
    from: "(hasResidual || this.receivedBytes !== this.into.length)",
    to: "this.receivedBytes !== this.into.length",
  }],
  "GOOD counts with less data than was asked for": [{
    file: "task.ts",
    from: "(hasResidual || this.receivedBytes !== this.into.length)",
    to: "hasResidual",
  }],
  "the decoder is off by the padding": [{
    file: "decoder.ts",
    from: "const paddingBytes = -this.#dataBytes & 3;\n    const trailerBytes",
    to: "const paddingBytes = this.#dataBytes & 3;\n    const trailerBytes",
  }],
  "the data digest is not looked at": [{
    file: "decoder.ts",
    from: "if (crc !== new DataView",
    to: "if (crc === -1 && crc !== new DataView",
  }],
  "data of an aborted read is stored": [{
    file: "task.ts",
    from: 'this.isAbandoned ? "skip" : ',
    to: "",
  }],
  "a read that was under way on a lost connection is forgotten": [{
    file: "dispatcher.ts",
    from: "this.#queue.unshift(...again);",
    to: "this.#queue.unshift(...again.slice(1));",
  }],
  "the command window is not kept": [{
    file: "sequence.ts",
    from: "return !serialBefore(this.#maxCmdSN, this.#nextCmdSN);",
    to: "return true;",
  }],
  "one command more than allowed is sent": [{
    file: "connection.ts",
    from: "this.#tasks.size < this.#settings.maxTasks",
    to: "this.#tasks.size <= this.#settings.maxTasks",
  }],
  "another disk behind the LUN is taken for the first": [{
    file: "identify.ts",
    from: "if (expected[key] !== found[key]) {",
    to: 'if (key === "blockBytes" && expected[key] !== found[key]) {',
  }],
  "a login that does not end is waited for": [{
    file: "connection.ts",
    from: "if (nowMs < this.#deadlineMs) return undefined;",
    to: 'if (nowMs < this.#deadlineMs || this.#state === "login") return undefined;',
  }],
};
