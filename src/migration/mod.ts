/** The door of the migration: what the commands can do with one. */
export { AddressBook } from "./address-book.ts";
export { attachByTicket, type AttachRequest, exportByHand } from "./by-hand.ts";
export { type Context, observe, observeKnown, statusById } from "./context.ts";
export { Driver, type Outcome } from "./drive.ts";
export { failback, type FailbackRequest } from "./failback.ts";
export { allStatuses, findEnded, findHosts, type Hosts } from "./hosts.ts";
export { isSameHost } from "./other-host.ts";
export { handOffNew, type MigrateRequest, newId, planMigration, setUp } from "./start.ts";
export { nbdUriOf } from "./status.ts";
export { abort, activate, allowCutover, askAll, knownDestinations, limit, resume } from "./steer.ts";
export { requireSame, type Verified, verify } from "./verify.ts";
export { destinationsOf } from "./view.ts";
