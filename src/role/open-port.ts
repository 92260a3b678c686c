/** A TCP port that listens for a moment, so that another host can try whether it gets through. */
import { createServer } from "node:net";
import { messageOf } from "../lib/errors.ts";

/** What connects is closed at once. Never rejects. */
export function openPort(
  address: string,
  forMs: number,
): Promise<{ readonly port: number | null; readonly problem: string | null }> {
  return new Promise((resolve) => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.destroy();
    });
    server.on("error", (error) => resolve({ port: null, problem: messageOf(error) }));
    server.listen({ host: address, port: 0 }, () => {
      setTimeout(() => server.close(), forMs).unref();
      server.unref();
      const bound = server.address();
      resolve({ port: typeof bound === "object" && bound !== null ? bound.port : null, problem: null });
    });
  });
}
