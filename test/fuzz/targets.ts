/** All fuzz targets. */
import { loginTargets } from "./iscsi-login.ts";
import { textTargets } from "./iscsi-text.ts";
import { dataIn, pduStream } from "./iscsi-stream.ts";
import { scsiTargets } from "./iscsi-scsi.ts";
import { journalTargets } from "./journals.ts";
import { mapTargets } from "./maps.ts";
import { nbdTargets } from "./nbd.ts";
import { rpcTargets } from "./rpc.ts";
import { storedMapTargets } from "./stored-maps.ts";
import { tgtTargets } from "./tgt.ts";
import { ticketTargets } from "./tickets.ts";
import { wordTargets } from "./words.ts";
import type { Target } from "./target.ts";

export const targets: readonly Target[] = [
  pduStream,
  dataIn,
  ...textTargets,
  ...loginTargets,
  ...scsiTargets,
  ...nbdTargets,
  ...rpcTargets,
  ...journalTargets,
  ...mapTargets,
  ...storedMapTargets,
  ...tgtTargets,
  ...ticketTargets,
  ...wordTargets,
];
