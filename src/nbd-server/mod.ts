/** NBD server (fixed newstyle) for a `BlockDevice`, on a unix socket. The door of this room. */
export { NbdServer } from "./server.ts";
export type { NbdClient, NbdServerOptions } from "./server.ts";
export { allocationFlags } from "./device.ts";
export type { BlockDevice, Extent } from "./device.ts";
export { NbdProtocolError } from "./protocol.ts";
