/**
 * What the two roles can be asked. Every request is checked against its schema before anything is done. Pure.
 *
 * Requests to the source role begin with `source.`, those to the destination role with `destination.`.
 */
import * as v from "valibot";
import { type EngineStatus, sourceExportSchema } from "../engine/mod.ts";
import { isDestination } from "../ssh/mod.ts";
import { type HostReplies, hostRequests } from "./host-messages.ts";

/**
 * Names one disk of a migration on every host: the migration's id (8 letters and digits) if it has one disk,
 * else that and the disk's number: `abcdefgh-1`.
 */
export const idSchema = v.pipe(v.string(), v.regex(/^[a-z0-9]{4,16}(-[1-9][0-9]?)?$/));
const migrationIdSchema = v.pipe(v.string(), v.regex(/^[a-z0-9]{4,16}$/));
export const isMigrationId = (text: string): boolean => v.is(migrationIdSchema, text);
export const maxDisks = 32;
/** In one message. */
export const maxExtents = 8_192;

/** Whether a list of `only` (a migration's id or a disk's, or nothing in particular) has this disk in it. */
export function isAskedFor(diskId: string, only: string | undefined): boolean {
  return only === undefined || diskId === only || migrationOf(diskId) === only;
}

/** The migration that a disk's id belongs to. */
export const migrationOf = (diskId: string): string => diskId.split("-")[0];
const pathSchema = v.pipe(
  v.string(),
  v.minLength(1),
  v.maxLength(4096),
  v.check((path) => !path.includes("\0")),
);
const bytes = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const address = v.pipe(v.string(), v.ip());

/** How ssh names a host: `node1`, `root@node1`, `root@fe80::1`. */
export const reachSchema = v.pipe(v.string(), v.check(isDestination));

/** A disk on a host. */
export const endpointSchema = v.object({
  host: v.string(),
  path: v.string(),
  /** How the migration's other host may reach this one by ssh; null: nobody knows, or it is the same host. */
  reach: v.optional(v.nullable(reachSchema), null),
  /** Which host it is, see host-id.ts; null: in records of before there were ids, and in tickets. */
  hostId: v.optional(v.nullable(v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/))), null),
});
export type Endpoint = v.InferOutput<typeof endpointSchema>;

export const handoffs = ["now", "manual", "command"] as const;

/** What the migration was asked to do; kept with the destination, so that `resume` needs nothing else. */
export const migrationOptionsSchema = v.object({
  handoff: v.picklist(handoffs),
  verify: v.boolean(),
  holdCutover: v.boolean(),
  /** The source belongs to another run of dlsm that only a ticket connects with this one. */
  byTicket: v.boolean(),
  /** The source is not released before the cut-over is asked for, so that the disk can go back. */
  keepSource: v.optional(v.boolean(), false),
});
export type MigrationOptions = v.InferOutput<typeof migrationOptionsSchema>;

/** How the destination reaches the source's export. */
export const networkSchema = v.object({
  /** Where the source's portal listens; port 0: any that is free. */
  portal: v.object({ address, port: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65535)) }),
  /** The one address that may log in. */
  allow: address,
  /** The ssh destination through which the portal is reached; null: it is reached as it is. */
  tunnel: v.nullable(reachSchema),
});
export type NetworkPlan = v.InferOutput<typeof networkSchema>;

/** All that a disk's migration needs to know from its start; kept in the destination's journal before anything is done. */
export const planSchema = v.object({
  id: idSchema,
  /** Disks that the migration has. */
  diskCount: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(maxDisks)), 1),
  network: v.optional(networkSchema, {
    portal: { address: "127.0.0.1", port: 0 },
    allow: "127.0.0.1",
    tunnel: null,
  }),
  path: pathSchema,
  force: v.boolean(),
  sizeBytes: bytes,
  blockBytes: bytes,
  activation: v.picklist(["explicit", "first-write"]),
  /** Limit of the background sync of all disks together; null for none. */
  bytesPerSecond: v.nullable(v.number()),
  sourceTimeoutMs: v.nullable(v.number()),
  source: endpointSchema,
  /** How the source may reach the destination by ssh. */
  destinationReach: v.optional(v.nullable(reachSchema), null),
  options: migrationOptionsSchema,
  /** The disk goes back to where it came from: the old migration's disk, and whether its volume was synced. */
  failback: v.optional(v.nullable(v.object({ of: idSchema, isWhole: v.boolean() })), null),
});
export type Plan = v.InferOutput<typeof planSchema>;

export const requests = {
  ...hostRequests,

  "source.inspect": v.object({ path: pathSchema }),
  "source.export": v.object({
    id: idSchema,
    path: pathSchema,
    ...networkSchema.entries,
    destination: v.nullable(endpointSchema),
  }),
  /** `force`: a device that cannot be told from another one after a reboot is taken for the one. */
  "source.ensure": v.object({ id: idSchema, force: v.boolean() }),
  /**
   * Before the hand-off: the disk is made read-only, where that can be had, and watched from then on. Refused
   * (and undone) while somebody can write it, unless forced.
   */
  "source.fence": v.object({ id: idSchema, force: v.boolean() }),
  /** `force`: also if the disk is gone, or another one has its path; that one is not touched. */
  /** The fenced disk can be written again, by whoever it goes back to; its changes are still watched. */
  "source.lift": v.object({ id: idSchema }),
  "source.changed": v.object({ id: idSchema }),
  "source.unfence": v.object({ id: idSchema, force: v.optional(v.boolean()) }),
  "source.hash": v.object({
    id: idSchema,
    pieces: v.pipe(v.array(v.array(v.tuple([bytes, bytes]))), v.maxLength(256)),
  }),
  "source.release": v.object({ id: idSchema, force: v.boolean() }),
  "source.list": v.object({ id: v.optional(idSchema) }),

  "destination.inspect": v.object({
    path: pathSchema,
    sizeBytes: bytes,
    sourceBlockBytes: v.picklist([512, 4096]),
    force: v.boolean(),
    /** The source: if it is on this machine (the kernel's boot tells), it must not be the same disk. */
    source: v.object({ bootId: v.string(), identity: v.string(), standsOn: v.array(v.string()) }),
  }),
  "destination.plan": planSchema,
  "destination.attach": v.object({ id: idSchema, export: sourceExportSchema }),
  /** `force` as above, and what was acknowledged but not flushed may be lost with a live map. */
  "destination.ensure": v.object({
    id: idSchema,
    export: v.nullable(sourceExportSchema),
    force: v.boolean(),
  }),
  "destination.activate": v.object({ id: idSchema }),
  /** What was to happen before the hand-off has: only the hand-off is left. */
  "destination.decideHandoff": v.object({ id: idSchema }),
  "destination.pause": v.object({ id: idSchema }),
  "destination.resume": v.object({ id: idSchema }),
  /** This disk's share of the limit, and the limit of all disks together. */
  "destination.limit": v.object({
    id: idSchema,
    bytesPerSecond: v.nullable(v.pipe(v.number(), v.minValue(1))),
    totalBytesPerSecond: v.nullable(v.pipe(v.number(), v.minValue(1))),
  }),
  "destination.hashFetched": v.object({ id: idSchema, from: bytes }),
  "destination.setVerified": v.object({
    id: idSchema,
    verified: v.picklist(["same", "different"]),
    verifiedBytes: bytes,
  }),
  "destination.detachSource": v.object({ id: idSchema }),
  "destination.setReleased": v.object({ id: idSchema }),
  "destination.allowCutover": v.object({ id: idSchema, force: v.boolean() }),
  "destination.finish": v.object({ id: idSchema }),
  "destination.abort": v.object({ id: idSchema, force: v.boolean() }),
  "destination.list": v.object({ id: v.optional(idSchema) }),
  /** Of a migration, or one of its disks. */
  "destination.ended": v.object({ id: idSchema }),

  /** The volume ends, to go back as the disk `as` of another migration. `force`: clients are disconnected. */
  "destination.freeze": v.object({ id: idSchema, as: idSchema, force: v.boolean() }),
  /** Of a frozen volume: what was written since the hand-off, from an offset on. */
  "destination.written": v.object({ id: idSchema, as: idSchema, from: bytes }),
  /** It is not to go back after all: from now on nothing more is said of what was written. */
  "destination.unfreeze": v.object({ id: idSchema }),
  /** After that, when the disk it would have gone back as is gone: as before `freeze`, without its engine. */
  "destination.thaw": v.object({ id: idSchema }),
  /** It has gone back: only the disk remains. */
  "destination.retire": v.object({ id: idSchema, as: idSchema }),
  /** Of a planned disk that goes back: all of [from, to) is here already, but for the extents. */
  "destination.seed": v.object({
    id: idSchema,
    from: bytes,
    to: bytes,
    extents: v.pipe(v.array(v.tuple([bytes, bytes])), v.maxLength(maxExtents)),
  }),
  /** The old migration of a disk that went back is gone on both hosts. */
  "destination.setSettled": v.object({ id: idSchema }),

  /** Who drives a migration to its end: one conversation or background process at a time. */
  "driver.take": v.object({ id: migrationIdSchema }),
  /** `goOn`: a process in the background takes over, unless one drives already. */
  "driver.leave": v.object({ id: migrationIdSchema, goOn: v.boolean() }),
  /** What holds the driver up; shown by the status until another note, or none, takes its place. */
  "driver.note": v.object({ id: migrationIdSchema, note: v.nullable(v.pipe(v.string(), v.maxLength(4096))) }),
} as const;
export type RequestName = keyof typeof requests;
export type Request<Name extends RequestName> = v.InferOutput<(typeof requests)[Name]>;

export interface InspectedSource {
  readonly host: string;
  /** Absolute, without symbolic links. */
  readonly path: string;
  /** Tells whether two paths are one disk of this host. */
  readonly identity: string;
  /** Its own identity and those of the disks and files that it is made of. */
  readonly standsOn: readonly string[];
  readonly isFile: boolean;
  readonly sizeBytes: number;
  /** What a copy of it takes at least: a file without its holes, all of a device. */
  readonly allocatedBytes: number;
  readonly blockBytes: 512 | 4096;
  readonly users: readonly DiskUser[];
}

/** Somebody who can write a disk. */
export interface DiskUser {
  /** "process": has it open for writing. "mount", "swap", "holder": the kernel uses it. */
  readonly kind: "process" | "mount" | "swap" | "holder";
  readonly pid: number | null;
  /** The command, the mount point, the holder's name. */
  readonly name: string;
}

/**
 * "mode": no write permission in the file's mode. "immutable": the file's immutable flag, which root obeys as
 * well. "readOnly": the device's read-only flag.
 */
export const fenceKinds = ["mode", "immutable", "readOnly"] as const;
export type FenceKind = (typeof fenceKinds)[number];

export interface Fenced {
  /** What keeps the disk from being written. */
  readonly kinds: readonly FenceKind[];
  /** What could not be had, and why; for people. */
  readonly notes: readonly string[];
  /** Who can write it all the same; empty unless forced. */
  readonly users: readonly DiskUser[];
  /** It was fenced before. */
  readonly stood: boolean;
}

export interface InspectedDestination {
  readonly host: string;
  readonly path: string;
  /** Undefined if there is nothing there yet. */
  readonly identity: string | null;
  /** Free space of the file system for a file that is still to be made or filled; null for a device. */
  readonly freeBytes: number | null;
}

export interface SourceEntry {
  readonly id: string;
  readonly createdAt: string;
  readonly state: "exporting" | "exported" | "releasing";
  readonly source: Endpoint;
  readonly destination: Endpoint | null;
  readonly sizeBytes: number;
  readonly tgtdPid: number | null;
  /** How the disk is kept from being written; null before the hand-off. No kinds: nothing could be had. */
  readonly fence: null | { readonly kinds: readonly FenceKind[] };
  /** In words: the disk was written since it was fenced, or somebody can write it. */
  readonly danger: string | null;
  /** Set if the record cannot be read; then the other fields may be empty. */
  readonly problem: string | null;
}

export interface DestinationEntry {
  readonly id: string;
  /** False if its journal cannot be read: `problem` says why, and what is not known is empty. */
  readonly isReadable: boolean;
  readonly createdAt: string;
  readonly state: "planned" | "attaching" | "attached" | "frozen" | "thawing" | "finishing" | "aborting";
  /** The disk that it goes back as, while it is frozen (or thawing). */
  readonly goesBackAs: string | null;
  /** It is a disk that goes back. `of`: the old migration's. `isSettled`: that is gone on both hosts. */
  readonly failback:
    | null
    | {
      readonly of: string;
      readonly isWhole: boolean;
      readonly seededBytes: number;
      readonly isSettled: boolean;
    };
  readonly source: Endpoint;
  readonly destination: Endpoint;
  readonly options: MigrationOptions;
  readonly diskCount: number;
  readonly network: NetworkPlan;
  /** Limit of the background sync of all disks together; null for none. */
  readonly totalBytesPerSecond: number | null;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** The hand-off has happened. */
  readonly isActivated: boolean;
  /** Nothing has to happen before it any more: the user's command has ended well. */
  readonly isHandoffDecided: boolean;
  readonly verified: "same" | "different" | null;
  /** What was compared for it. */
  readonly verifiedBytes: number;
  readonly isReleased: boolean;
  readonly mayCutOver: boolean;
  readonly nbdSocket: string;
  /** Null if the engine does not run, or hangs. */
  readonly engine: EngineStatus | null;
  /** It runs and does not answer: `problem` says so. Not to be taken for gone. */
  readonly isEngineHung: boolean;
  /** Process that drives the migration to its end; null if none does. */
  readonly driverPid: number | null;
  /** What holds it up, in its words. */
  readonly driverNote: string | null;
  /** Resident and written bytes as the map on disk says, for when no engine runs. */
  readonly stored: { readonly residentBytes: number; readonly writtenBytes: number } | null;
  readonly problem: string | null;
  /** What can be done about the problem, where `dlsm resume` alone does not help. */
  readonly remedy: string | null;
}

/** A disk whose migration is done: what its entry last was. */
export interface EndedDisk {
  /** ISO 8601, UTC. */
  readonly endedAt: string;
  readonly entry: DestinationEntry;
}

/** What each request is answered with. */
export interface Replies extends HostReplies {
  "source.inspect": InspectedSource;
  "source.export": v.InferOutput<typeof sourceExportSchema>;
  "source.ensure": v.InferOutput<typeof sourceExportSchema>;
  "source.fence": Fenced;
  /** `note`: what was not undone, and why; null if all was. */
  "source.unfence": { readonly wasFenced: boolean; readonly note: string | null };
  "source.lift": null;
  /** In words, how the disk's content has changed since it was fenced; null if it has not. */
  "source.changed": string | null;
  "source.hash": Uint8Array[];
  /** `note` as for unfence. */
  "source.release": { readonly wasThere: boolean; readonly note: string | null };
  "source.list": SourceEntry[];
  "destination.inspect": InspectedDestination;
  "destination.plan": null;
  "destination.attach": DestinationEntry;
  "destination.ensure": DestinationEntry;
  "destination.activate": EngineStatus;
  "destination.decideHandoff": null;
  "destination.pause": EngineStatus;
  "destination.resume": EngineStatus;
  "destination.limit": EngineStatus;
  "destination.hashFetched": {
    readonly pieces: { readonly extents: [number, number][]; readonly sha256: Uint8Array }[];
    readonly next: number | null;
  };
  "destination.setVerified": null;
  "destination.detachSource": EngineStatus;
  "destination.setReleased": null;
  "destination.allowCutover": EngineStatus | null;
  /** The last status, or the number of clients that are still connected. */
  "destination.finish": { readonly isDone: boolean; readonly status: EngineStatus | null };
  "destination.abort": { readonly wasThere: boolean };
  "destination.list": DestinationEntry[];
  /** Empty: it did not end here, or long ago. */
  "destination.ended": EndedDisk[];
  "destination.freeze": null;
  /** `to`: up to where it is told; the disk's size at the end. */
  "destination.written": { readonly extents: readonly [number, number][]; readonly to: number };
  "destination.unfreeze": null;
  "destination.thaw": null;
  "destination.retire": null;
  "destination.seed": null;
  "destination.setSettled": null;
  /** Whether this conversation drives now. */
  "driver.take": boolean;
  "driver.leave": null;
  "driver.note": null;
}
