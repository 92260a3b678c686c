/** The door of the engine: what the destination role needs to start one and to talk to it. */
export {
  type EngineConfig,
  engineConfigJournal,
  engineConfigSchema,
  engineFiles,
  type SourceExport,
  sourceExportSchema,
} from "./config.ts";
export { type Extent, isStoredWhole, type MapPiece, readWritten, seedMap } from "./failback-map.ts";
export { readStoredStatus } from "./stored-status.ts";
export { type HashedPiece, pieceBytes } from "./verify.ts";
export type { EngineStatus } from "./status.ts";
export { runEngine } from "./process.ts";
