/** A process with a source; its export comes on stdin. Says "connected" when it is, and stays. */
import { text } from "node:stream/consumers";
import { IscsiSource } from "../../src/engine/iscsi-source.ts";
import { until } from "../helpers/until.ts";

const source = new IscsiSource(JSON.parse(await text(process.stdin)), {
  initiatorName: "iqn.2026-01.test:owner",
  onChange: () => {},
});
await until(() => source.isConnected, "it is logged in");
console.log("connected");
