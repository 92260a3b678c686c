/** The door of the roles: what a host can be asked, this one or another. */
export type * from "./messages.ts";
export { isMigrationId, maxDisks, migrationOf } from "./messages.ts";
export { type AskOptions, type Host, isUnreachable } from "./asking.ts";
export { describeUsers } from "./disk-users.ts";
export { endedName } from "./ended.ts";
export { hostIdName } from "./host-id.ts";
export type { HostFacts } from "./host-messages.ts";
export type { Finding } from "./survey/finding.ts";
export { listIds, type RoleFolders, roleFolders } from "./layout.ts";
export { localHost } from "./local-host.ts";
export { remoteHost, type RemoteHostOptions } from "./remote-host.ts";
export { serveRoles } from "./serve.ts";
export { decodeTicket, encodeTicket, type Ticket } from "./ticket.ts";
