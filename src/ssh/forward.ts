/**
 * A TCP connection that another host makes for this one, as the transport of an iSCSI session: `ssh -W`, whose
 * stdin and stdout are the connection.
 *
 * ssh ends with its owner, whatever ends that: its stdin is closed then.
 */
import type { Connect, Transport, TransportHandlers } from "../iscsi-initiator/mod.ts";
import { messageOf } from "../lib/errors.ts";
import { connect, type SshConnection } from "./connection.ts";
import { explainForward } from "./explain-forward.ts";

/**
 * Connections made by `destination`, to addresses as seen from there, one ssh each. Nobody is asked anything.
 * The errors that the handlers are given say why there is no tunnel.
 */
export function connectThrough(destination: string): Connect {
  return ({ host, port }, handlers) => {
    try {
      const errand = { forwardTo: { address: host, port } };
      return new Forward(connect(destination, errand, { isInteractive: false }), handlers);
    } catch (error) {
      return unmade(new Error(`no tunnel through ${destination}: ${messageOf(error)}`), handlers);
    }
  };
}

class Forward implements Transport {
  readonly #ssh: SshConnection;
  #isOver = false;

  constructor(ssh: SshConnection, handlers: TransportHandlers) {
    this.#ssh = ssh;
    const { stream, destination } = ssh;
    stream.on("data", (chunk: Uint8Array) => {
      if (!this.#isOver) handlers.onData(chunk);
    });
    // The far end has no more to say; ssh ends when there is no more to send either.
    stream.on("end", () => stream.end());
    // A broken pipe; how ssh ended says more.
    stream.on("error", () => {});
    void ssh.ended.then((end) => {
      if (this.#isOver) return;
      this.#isOver = true;
      const problem = explainForward(destination, end);
      handlers.onClose(problem && new Error(`no tunnel through ${destination}: ${problem.message}`));
    });
    // ssh keeps what it is given until it is through.
    process.nextTick(() => {
      if (!this.#isOver) handlers.onConnect();
    });
  }

  write(bytes: Uint8Array): void {
    this.#ssh.stream.write(bytes);
  }

  get bufferedBytes(): number {
    return this.#ssh.stream.writableLength;
  }

  destroy(): void {
    this.#isOver = true;
    this.#ssh.kill();
  }
}

/** A connection that could not even be tried. */
function unmade(error: Error, handlers: TransportHandlers): Transport {
  let isOver = false;
  process.nextTick(() => {
    if (!isOver) handlers.onClose(error);
  });
  return { write: () => {}, bufferedBytes: 0, destroy: () => void (isOver = true) };
}
