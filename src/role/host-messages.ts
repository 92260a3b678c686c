/** What a host can be asked about itself, whatever its part in a migration. Pure. */
import * as v from "valibot";
import type { Cleaned, Finding } from "./survey/finding.ts";

const address = v.pipe(v.string(), v.ip());

export const hostRequests = {
  "host.describe": v.object({}),
  /** Gives the host its id, if it has none yet. */
  "host.identify": v.object({}),
  "host.route": v.object({ to: address }),
  "host.probe": v.object({
    address,
    port: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535)),
    timeoutMs: v.pipe(v.number(), v.minValue(1), v.maxValue(60_000)),
  }),
  "host.reachSsh": v.object({ destination: v.pipe(v.string(), v.minLength(1), v.maxLength(255)) }),
  /** Listens at an address of this host for a moment, so that another one can probe it. */
  "host.openPort": v.object({ address, forMs: v.pipe(v.number(), v.minValue(1), v.maxValue(60_000)) }),
  "host.clock": v.object({}),
  "host.survey": v.object({}),
  "host.clean": v.object({}),
} as const;

export interface HostFacts {
  readonly hostname: string;
  /** Names the state folder, whatever the machine's name is; null: nothing was ever begun here. */
  readonly hostId: string | null;
  /** Of dlsm. */
  readonly version: string;
  readonly uid: number;
  readonly user: string;
  /** Names this boot of the machine: two hosts with the same one are one machine. */
  readonly bootId: string;
  /** Names the network namespace: on one machine, hosts with another one have addresses of their own. */
  readonly networkId: string;
  readonly stateFolder: string;
  readonly runFolder: string;
  /** The addresses of the ssh connection that it is asked through, as its own end sees them. */
  readonly ssh: { readonly clientAddress: string; readonly serverAddress: string } | null;
  /** What dlsm runs under there: "node 26.10.0". */
  readonly runtime: string;
}

export interface HostReplies {
  "host.describe": HostFacts;
  "host.identify": { readonly hostId: string };
  /** The address that packets to there leave with; null: why there is none. */
  "host.route": { readonly sourceAddress: string | null; readonly problem: string | null };
  /** Null: a TCP connection was made, and closed again. */
  "host.probe": { readonly problem: string | null };
  /** `problem` null: it can run dlsm there; then also which host that is. */
  "host.reachSsh": {
    readonly problem: string | null;
    readonly hostname: string | null;
    readonly hostId: string | null;
  };
  /** Null: why there is none. */
  "host.openPort": { readonly port: number | null; readonly problem: string | null };
  /** Milliseconds since 1970, UTC, by this host's clock. */
  "host.clock": { readonly nowMs: number };
  /** What it can do, what is missing, what was left behind. */
  "host.survey": Finding[];
  /** What was provably left over and is removed now, as far as it could be. */
  "host.clean": Cleaned[];
}
