/** What an engine says of itself. Pure. */
import type { SyncState } from "./sync.ts";

export type SyncedState = "attached" | "active" | "synced";

/** Numbers of bytes as in the status that users see. */
export interface EngineStatus {
  readonly state: SyncedState;
  readonly pid: number;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly residentBytes: number;
  readonly writtenBytes: number;
  readonly fetchedBytes: { readonly demand: number; readonly readahead: number; readonly sync: number };
  readonly refetchedBytes: number;
  readonly holeBytes: number;
  readonly overwrittenBytes: number;
  readonly rateBytesPerSecond: number;
  readonly etaSeconds: number | null;
  /** The hand-off is being written down: it may have happened by the next look. */
  readonly isActivating: boolean;
  readonly sync: SyncState;
  /** Limit of the background sync; null for none. */
  readonly limitBytesPerSecond: number | null;
  /** Both sessions with the source are logged in. */
  readonly isConnected: boolean;
  /** The source is no longer needed, and the engine has logged out of it. */
  readonly isSourceDetached: boolean;
  readonly sourceError: string | null;
  readonly lastError: string | null;
  /** NBD connections. */
  readonly clients: number;
}
