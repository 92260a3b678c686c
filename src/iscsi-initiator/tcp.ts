/** The transport over TCP. */
import { createConnection } from "node:net";
import type { Connect } from "./transport.ts";

/**
 * One buffer that every read of the socket fills again: no allocation per chunk. The decoder takes all of a
 * chunk before it returns. Larger buffers gain nothing.
 */
const readBufferBytes = 256 * 1024;

export const connectTcp: Connect = (address, handlers) => {
  let isOver = false;
  let failure: Error | undefined;
  const socket = createConnection({
    ...address,
    noDelay: true,
    onread: {
      buffer: Buffer.allocUnsafeSlow(readBufferBytes),
      callback(receivedBytes, buffer) {
        if (!isOver) handlers.onData(buffer.subarray(0, receivedBytes));
        return true;
      },
    },
  });
  socket.on("connect", () => {
    if (!isOver) handlers.onConnect();
  });
  socket.on("error", (error) => failure = error);
  socket.on("close", () => {
    if (isOver) return;
    isOver = true;
    handlers.onClose(failure);
  });
  return {
    write: (bytes) => void socket.write(bytes),
    get bufferedBytes() {
      return socket.writableLength;
    },
    destroy() {
      isOver = true;
      socket.destroy();
    },
  };
};
