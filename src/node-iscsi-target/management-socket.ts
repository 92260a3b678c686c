/** One request over tgtd's management socket. */
import { connect } from "node:net";
import { TgtError } from "./errors.ts";
import { decodeReply, type Reply } from "./management-message.ts";

/** Throws TgtError "noDaemon", "timeout", "permission" or "badReply". `action` is for the message. */
export function requestReply(
  options: { socketPath: string; message: Uint8Array; timeoutMs: number; action: string },
): Promise<Reply> {
  const { action } = options;
  return new Promise((resolve, reject) => {
    const socket = connect(options.socketPath);
    let received = Buffer.alloc(0);
    const timer = setTimeout(() => {
      fail(new TgtError("timeout", `${action}: tgtd did not answer within ${options.timeoutMs} ms`));
    }, options.timeoutMs);

    function fail(error: TgtError): void {
      clearTimeout(timer);
      socket.destroy();
      reject(error);
    }

    socket.on("connect", () => socket.write(options.message));
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      try {
        const reply = decodeReply(received);
        if (reply === undefined) return;
        clearTimeout(timer);
        socket.destroy();
        resolve(reply);
      } catch (error) {
        fail(error as TgtError);
      }
    });
    socket.on("error", (cause: NodeJS.ErrnoException) => {
      const reason = cause.code === "EACCES" || cause.code === "EPERM" ? "permission" : "noDaemon";
      fail(new TgtError(reason, `${action}: cannot reach tgtd (${cause.message})`, { cause }));
    });
    // After an answer this does nothing any more.
    socket.on(
      "close",
      () => fail(new TgtError("noDaemon", `${action}: tgtd closed the connection unanswered`)),
    );
  });
}
