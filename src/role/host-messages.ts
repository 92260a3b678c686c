/** What a host can be asked about itself, whatever its part in a migration. Pure. */
import * as v from "valibot";

export const hostRequests = {
  "host.describe": v.object({}),
  "host.reachSsh": v.object({ destination: v.pipe(v.string(), v.minLength(1), v.maxLength(255)) }),
} as const;

export interface HostFacts {
  readonly hostname: string;
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
  /** Null: it can run dlsm there. */
  "host.reachSsh": { readonly problem: string | null };
}
