/** The door of node-iscsi-target: private tgt daemons that export disks read-only over iSCSI. */
export type { Chap, Credentials } from "./check.ts";
export { Control } from "./control.ts";
export { Daemon } from "./daemon.ts";
export { type Disk, type DiskPath, inspectDisk } from "./disk.ts";
export { isTgtError, TgtError, type TgtReason } from "./errors.ts";
export type { ExportedDisk, ExportOptions } from "./export.ts";
export { findPrograms, type Programs } from "./programs.ts";
export { adoptDaemon, endStrays, startDaemon, type StartOptions } from "./start.ts";
export type {
  BoundAccount,
  Connection,
  Lun,
  LunStatistics,
  Portal,
  SystemState,
  Target,
  Traffic,
} from "./types.ts";
export { canKeepReadOnly, type ViewKind } from "./view.ts";
