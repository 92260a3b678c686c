/** The door of the migration: what the commands can do with one. */
export { allStatuses, type Context, findStatus, knownEntries, statusById } from "./context.ts";
export { Driver, endedStatus, type Outcome } from "./drive.ts";
export { activate, handOff, handOffNew, type MigrateRequest, planMigration, setUp } from "./start.ts";
export { nbdUriOf } from "./status.ts";
export { abort, allowCutover, knownDestination, resume } from "./steer.ts";
export { attachByTicket, exportByHand } from "./by-hand.ts";
export { requireSame, type Verified, verify } from "./verify.ts";
