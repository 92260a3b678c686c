/** What a session counts. */
export interface Statistics {
  /** Bytes of completed reads: those that ended with GOOD status. */
  bytesRead: number;
  /** SCSI commands sent, re-issues included. */
  commands: number;
  /** Logins after the first. */
  reconnects: number;
  /** Commands sent again because their connection was lost. */
  reissuedCommands: number;
  unitAttentions: number;
  /** Commands sent again after BUSY, TASK SET FULL or another passing condition. */
  busyRetries: number;
  /** Commands on the wire now, and requests that wait for the window or a connection. */
  inFlight: number;
  queued: number;
}
