/**
 * A read-only iSCSI initiator (RFC 7143, SPC-4, SBC-3) for one LUN of one target.
 *
 *     const session = new Session({ host, port, targetName, initiatorName, isidQualifier: 1 });
 *     await session.open();
 *     const block = new Uint8Array(4096);
 *     await session.read(0, block);
 *     await session.close();
 */
export { Session } from "./session.ts";
export type { Identity, InitiatorOptions, SessionState } from "./options.ts";
export type { ChapCredentials } from "./options.ts";
export type { Statistics } from "./statistics.ts";
export type { Designator, InquiryData, LbaExtent } from "./scsi.ts";
export type { Sense } from "./sense.ts";
export type { Clock } from "./clock.ts";
export type { Connect, Transport, TransportHandlers } from "./transport.ts";
export * from "./errors.ts";
export { senseKeys } from "./sense.ts";
